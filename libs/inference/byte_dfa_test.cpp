#include "inference/byte_dfa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/errors.h"
#include "inference/regex.h"

namespace nanochat {
namespace {

TEST(ByteDfa, CountsCodePoints) {
  const ByteDfa automaton = ByteDfa::length(1, 2);
  for (const char* good : {"a", "\xc3\xa9", "\xf0\x9f\x98\x80z"}) EXPECT_TRUE(automaton.matches(good)) << good;
  for (const char* bad : {"", "abc", "\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80"})
    EXPECT_FALSE(automaton.matches(bad)) << bad;
  EXPECT_TRUE(ByteDfa::length(2, {}).matches("many letters"));
  EXPECT_TRUE(ByteDfa::any_text().matches(""));
  EXPECT_TRUE(ByteDfa::length(3, 2).empty());
}

TEST(ByteDfa, CombinesLanguages) {
  const ByteDfa word = compile_regex("^[a-z]+$"), with_b = compile_regex("b"),
                listed = ByteDfa::texts({"b", "cat", "caf\xc3\xa9", ""});
  const ByteDfa both = ByteDfa::both(word, with_b), either = ByteDfa::either(word, listed),
                without = ByteDfa::without(word, listed);
  for (const char* text : {"", "b", "abc", "cat", "caf\xc3\xa9", "B", "dog", "1b"}) {
    const std::string shown = text;
    EXPECT_EQ(both.matches(text), word.matches(text) && with_b.matches(text)) << shown;
    EXPECT_EQ(either.matches(text), word.matches(text) || listed.matches(text)) << shown;
    EXPECT_EQ(without.matches(text), word.matches(text) && !listed.matches(text)) << shown;
  }
  EXPECT_TRUE(ByteDfa::both(word, compile_regex("^[0-9]+$")).empty());
  EXPECT_TRUE(ByteDfa::without(word, word).empty());
  EXPECT_TRUE(ByteDfa::both(ByteDfa(), word).empty());
  EXPECT_TRUE(ByteDfa::either(ByteDfa(), word).matches("a"));
  EXPECT_TRUE(ByteDfa::texts({}).empty());
}

TEST(ByteDfa, KnowsTheShortestText) {
  EXPECT_EQ(compile_regex("^(abc|de)f$").shortest(), 3);
  EXPECT_EQ(ByteDfa().shortest(), 0);
  const ByteDfa automaton = compile_regex("^ab$");
  ASSERT_EQ(automaton.by_distance().size(), automaton.size());
  EXPECT_TRUE(automaton.accepts(automaton.by_distance().front()));
  EXPECT_EQ(automaton.by_distance().back(), automaton.start());
}

TEST(ByteDfa, JoinsStatesThatDoTheSame) {
  EXPECT_EQ(compile_regex("^(a|b|c|ab|bb|cb)*$").size(), compile_regex("^(a|b|c|ab|cb)*$").size());
  EXPECT_EQ(compile_regex("^(x|y)z$").size(), 3u);
}

TEST(ByteDfa, SplitsTextsByTheirFirstByte) {
  const ByteDfa all = ByteDfa::any_text();
  const ByteDfa even = all.with_first_byte(0, 2), odd = all.with_first_byte(1, 2);
  EXPECT_TRUE(even.matches("bcd") && !even.matches("a") && !even.matches(""));
  EXPECT_TRUE(odd.matches("abb") && !odd.matches("b"));
}

TEST(ByteDfa, HasALimit) {
  EXPECT_THAT([] { ByteDfa::both(ByteDfa::length(0, 4000), compile_regex("a.{20}$")); },
              ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr("states")));
}

}  // namespace
}  // namespace nanochat
