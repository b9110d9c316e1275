#include "inference/answer_grammars.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

bool accepts(ByteAutomaton& automaton, std::string_view text) {
  ByteAutomaton::State state = automaton.start();
  for (const char c : text) {
    state = automaton.next(state, static_cast<unsigned char>(c));
    if (state == ByteAutomaton::kDead) return false;
  }
  return automaton.accepts(state);
}

TEST(AnswerGrammars, ARegularExpressionIsTheWholeAnswer) {
  ByteAutomaton automaton(regex_grammar("[a-z]+\\d?\"?"));
  for (const char* good : {"a", "ab1", "x\"", "z9\""}) EXPECT_TRUE(accepts(automaton, good)) << good;
  for (const char* bad : {"", "1", "a12", "a\" ", " a"}) EXPECT_FALSE(accepts(automaton, bad)) << bad;
}

TEST(AnswerGrammars, AChoiceIsOneOfItsTexts) {
  ByteAutomaton automaton(choice_grammar({"yes", "no", "no way", "\xc3\xa9", "yes"}));
  for (const char* good : {"yes", "no", "no way", "\xc3\xa9"}) EXPECT_TRUE(accepts(automaton, good)) << good;
  for (const char* bad : {"", "y", "no w", "\"yes\""}) EXPECT_FALSE(accepts(automaton, bad)) << bad;
  EXPECT_THAT([] { choice_grammar({}); }, ThrowsMessage<ConfigError>(HasSubstr("found no texts")));
  EXPECT_THAT([] { choice_grammar({"a", ""}); }, ThrowsMessage<ConfigError>(HasSubstr("empty text")));
}

struct Case {
  const char* grammar;
  std::vector<std::string> good, bad;
};

TEST(AnswerGrammars, Gbnf) {
  const std::vector<Case> cases = {
      {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "yesno"}},
      {"root ::= a b* # a comment\n# another\na ::= \"x\"\nb ::= [0-9]+ |\n  \"-\"\n", {"x", "x12", "x-3-"}, {"", "12"}},
      {"root ::= \"(\" root \")\" | \"\"", {"", "(())"}, {"(", ")("}},
      {"root ::= [^a-c\\]]{2}", {"dd", "\xc3\xa9z"}, {"aa", "d", "]d"}},
      {"root ::= (\"a\" | \"b\"){1,2} \"c\"?", {"a", "abc", "bb"}, {"c", "aaa"}},
      {"root ::= \"a\"{2,}", {"aa", "aaaa"}, {"a"}},
      {"root ::= \"\\x41\\u00e9\\n\\\"\" .", {"A\xc3\xa9\n\"\xf0\x9f\x98\x80"}, {"A"}},
      {"root ::= (\n  \"a\"\n  \"b\" )\nother ::= \"unused\"", {"ab"}, {"a"}},
      {"root ::= (\"a\"*)* \"b\"", {"b", "aab"}, {"a"}},
      {"root-1 ::= \"a\"\nroot ::= root-1 root-1", {"aa"}, {"a"}},
  };
  for (const Case& one : cases) {
    ByteAutomaton automaton(gbnf_grammar(one.grammar));
    for (const std::string& text : one.good) EXPECT_TRUE(accepts(automaton, text)) << one.grammar << " should take " << text;
    for (const std::string& text : one.bad)
      EXPECT_FALSE(accepts(automaton, text)) << one.grammar << " should not take " << text;
  }
}

TEST(AnswerGrammars, GbnfSaysWhatIsWrong) {
  for (const auto& [grammar, message] : std::vector<std::pair<const char*, const char*>>{
           {"", "no rule \"root\""},
           {"root = \"a\"", "line 1: expected \"::=\""},
           {"root ::= \"a\"\nroot ::= \"b\"", "line 2: the rule \"root\" is defined twice"},
           {"root ::= missing", "the rule \"missing\" is used and not defined"},
           {"root ::= root \"a\" | \"b\"", "left recursion"},
           {"root ::= a\na ::= \"\"? root \"x\"", "left recursion"},
           {"root ::= (\"a\"", "a '(' without ')'"},
           {"root ::= \"a", "does not end"},
           {"root ::= [b-a]", "in the wrong order"},
           {"root ::= \"\\q\"", "the escape \\q"},
           {"root ::= \"a\"{9999}", "counts above 4096"},
           {"root ::= \"a\"{3,1}", "in the wrong order"},
           {"root ::= \"\\ud800\"", "surrogate"},
           {"root ::= \"\xff\"", "malformed UTF-8"},
           {"root ::= <token>", "expected the name of a rule"}}) {
    EXPECT_THAT([&] { gbnf_grammar(grammar); }, ThrowsMessage<ConfigError>(HasSubstr(message))) << grammar;
  }
}

}  // namespace
}  // namespace nanochat
