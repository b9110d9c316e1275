#include "inference/byte_grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/errors.h"
#include "core/random.h"

namespace nanochat {
namespace {

using Rule = ByteGrammar::Rule;

// Balanced brackets around x: a language that no finite automaton reads.
ByteAutomaton brackets() {
  ByteGrammar grammar;
  const Rule rule = grammar.add_rule();
  ByteGrammar::Sequence core, around;
  grammar.append_literal(core, "x");
  grammar.append_literal(around, "(");
  around.push_back(ByteGrammar::use(rule));
  grammar.append_literal(around, ")");
  grammar.add_alternative(rule, core);
  grammar.add_alternative(rule, around);
  grammar.finish(rule);
  return ByteAutomaton(std::move(grammar));
}

ByteAutomaton::State read(ByteAutomaton& automaton, std::string_view text) {
  ByteAutomaton::State state = automaton.start();
  for (const char c : text) {
    if (state == ByteAutomaton::kDead) break;
    state = automaton.next(state, static_cast<unsigned char>(c));
  }
  return state;
}

TEST(ByteAutomaton, ReadsWhatTheGrammarWrites) {
  ByteAutomaton automaton = brackets();
  for (const char* good : {"x", "(x)", "((((x))))"}) {
    const auto state = read(automaton, good);
    ASSERT_NE(state, ByteAutomaton::kDead) << good;
    EXPECT_TRUE(automaton.accepts(state)) << good;
    EXPECT_FALSE(automaton.has_next(state));
    EXPECT_EQ(automaton.shortest(state), 0);
  }
  for (const char* bad : {"xx", "(x))", ")", "()", "y"}) EXPECT_EQ(read(automaton, bad), ByteAutomaton::kDead) << bad;
}

TEST(ByteAutomaton, KnowsTheShortestEnding) {
  ByteAutomaton automaton = brackets();
  EXPECT_EQ(automaton.shortest(automaton.start()), 1);
  const auto state = read(automaton, "(((");
  EXPECT_EQ(automaton.shortest(state), 4);
  const auto endings = automaton.endings(state);
  EXPECT_NE(std::find(endings.begin(), endings.end(), "x)))"), endings.end());
}

// Along any ending the rest stays an ending: what the constraint's promise to finish in time rests on.
TEST(ByteAutomaton, TheRestOfAnEndingIsAnEnding) {
  ByteGrammar grammar;
  const Rule digits = grammar.add_rule(), list = grammar.add_rule(), more = grammar.add_rule();
  const ByteGrammar::Symbol digit = grammar.one_of(ByteGrammar::range('0', '9'));
  grammar.add_alternative(digits, {digit});
  grammar.add_alternative(digits, {digit, ByteGrammar::use(digits)});
  ByteGrammar::Sequence open, close, next;
  grammar.append_literal(open, "[");
  open.insert(open.end(), {ByteGrammar::use(digits), ByteGrammar::use(more)});
  grammar.append_literal(close, "]");
  grammar.append_literal(next, ",");
  next.insert(next.end(), {ByteGrammar::use(list), ByteGrammar::use(more)});
  grammar.add_alternative(list, open);
  grammar.add_alternative(list, {ByteGrammar::use(digits)});
  grammar.add_alternative(more, close);
  grammar.add_alternative(more, next);
  grammar.finish(list);
  ByteAutomaton automaton(std::move(grammar));
  Rng rng(1);
  for (int walk = 0; walk < 200; ++walk) {
    ByteAutomaton::State state = automaton.start();
    for (int step = 0; step < 30 && !automaton.accepts(state); ++step) {
      std::int64_t shortest = ByteGrammar::kNever;
      for (const std::string& ending : automaton.endings(state)) {
        shortest = std::min(shortest, static_cast<std::int64_t>(ending.size()));
        auto after = automaton.next(state, static_cast<unsigned char>(ending[0]));
        ASSERT_NE(after, ByteAutomaton::kDead);
        const auto rest = automaton.endings(after);
        EXPECT_TRUE(ending.size() == 1
                        ? automaton.accepts(after)
                        : automaton.accepts(after) || std::find(rest.begin(), rest.end(), ending.substr(1)) != rest.end());
      }
      EXPECT_EQ(shortest, automaton.shortest(state));
      ByteAutomaton::State next_state = ByteAutomaton::kDead;
      while (next_state == ByteAutomaton::kDead)
        next_state = automaton.next(state, static_cast<unsigned char>("0123[],"[rng.below(7)]));
      state = next_state;
    }
  }
}

TEST(ByteAutomaton, RepetitionAtTheEndOfARuleNeedsNoStack) {
  ByteGrammar grammar;
  const Rule rule = grammar.add_rule();
  grammar.add_alternative(rule, {});
  grammar.add_alternative(rule, {grammar.one_of(ByteGrammar::range('a', 'b')), ByteGrammar::use(rule)});
  grammar.finish(rule);
  ByteAutomaton automaton(std::move(grammar));
  const auto once = read(automaton, "a");
  EXPECT_EQ(read(automaton, std::string(1000, 'b')), once);  // one state, however long
  EXPECT_TRUE(automaton.accepts(once) && automaton.has_next(once));
}

TEST(ByteAutomaton, WhatCannotEndIsDead) {
  ByteGrammar grammar;
  const Rule rule = grammar.add_rule();
  grammar.add_alternative(rule, {grammar.one_of(ByteGrammar::range('a', 'a')), ByteGrammar::use(rule)});
  grammar.finish(rule);
  EXPECT_EQ(ByteAutomaton(std::move(grammar)).start(), ByteAutomaton::kDead);
}

TEST(ByteGrammar, HasALimit) {
  ByteGrammar grammar;
  const Rule rule = grammar.add_rule();
  const ByteGrammar::Sequence long_one(ByteGrammar::kMaxSymbols / 2, grammar.one_of(ByteGrammar::range('a', 'a')));
  grammar.add_alternative(rule, long_one);
  EXPECT_THAT([&] { grammar.add_alternative(rule, long_one); },
              ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr("more than 1,000,000 symbols")));
}

// x*n in rules of one x each: endings are found without a call for each rule.
TEST(ByteAutomaton, EndingsMayBeLong) {
  ByteGrammar grammar;
  const ByteGrammar::Symbol x = grammar.one_of(ByteGrammar::range('x', 'x'));
  Rule rest = grammar.add_rule();
  grammar.add_alternative(rest, {});
  for (std::int64_t i = 0; i < ByteAutomaton::kLongestEnding + 1; ++i) {
    const Rule longer = grammar.add_rule();
    grammar.add_alternative(longer, {x, ByteGrammar::use(rest)});
    rest = longer;
  }
  grammar.finish(rest);
  ByteAutomaton automaton(std::move(grammar));
  EXPECT_EQ(automaton.shortest(automaton.start()), ByteAutomaton::kLongestEnding + 1);
  EXPECT_TRUE(automaton.endings(automaton.start()).empty());
  const auto endings = automaton.endings(automaton.next(automaton.start(), 'x'));
  ASSERT_EQ(endings.size(), 1u);
  EXPECT_EQ(endings[0], std::string(static_cast<std::size_t>(ByteAutomaton::kLongestEnding), 'x'));
}

// Lists in two ways each: every bracket doubles the ways to read what came so far.
TEST(ByteAutomaton, KeepsSoManyWaysAndNoMore) {
  ByteGrammar grammar;
  const Rule list = grammar.add_rule();
  ByteGrammar::Sequence open, close;
  grammar.append_literal(open, "[");
  grammar.append_literal(close, "]");
  for (int way = 0; way < 2; ++way) {
    const Rule end = grammar.add_rule();
    grammar.add_alternative(end, close);
    ByteGrammar::Sequence sequence = open;
    sequence.insert(sequence.end(), {ByteGrammar::use(list), ByteGrammar::use(end)});
    grammar.add_alternative(list, sequence);
  }
  grammar.add_alternative(list, {grammar.one_of(ByteGrammar::range('x', 'x'))});
  grammar.finish(list);
  ByteAutomaton automaton(std::move(grammar));
  const auto deep = read(automaton, std::string(40, '['));
  EXPECT_LE(automaton.endings(deep).size(), ByteAutomaton::kMaxStacks);
  EXPECT_EQ(automaton.shortest(deep), 41);
  EXPECT_TRUE(automaton.accepts(read(automaton, std::string(40, '[') + "x" + std::string(40, ']'))));
}

}  // namespace
}  // namespace nanochat
