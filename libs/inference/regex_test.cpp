#include "inference/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct Case {
  const char* expression;
  std::vector<std::string> good, bad;
};

TEST(Regex, MatchesWholeTexts) {
  const std::vector<Case> cases = {
      {"", {""}, {"a"}},
      {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
      {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
      {"(ab)*c", {"c", "ababc"}, {"abab", "abc c"}},
      {"a{2}b{1,3}c{2,}", {"aabcc", "aabbbccc"}, {"abcc", "aabbbbcc", "aabc"}},
      {"a{,2}", {}, {}},  // refused, see below
      {"a{x}{", {"a{x}{"}, {"a"}},
      {"a+?b??", {"a", "aab"}, {"b"}},
      {"[a-cx]", {"a", "c", "x"}, {"d", "", "ab"}},
      {"[^a-c]", {"d", "\xc3\xa9", "\n"}, {"a", "\xc3"}},
      {"[\\]\\-a]", {"]", "-", "a"}, {"\\"}},
      {"[a-]", {"a", "-"}, {"b"}},
      {"[\\d.]+", {"1.5"}, {"a"}},
      {".", {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}, {"\n", "\r", "", "\xc3", "\xed\xa0\x80", "\xff"}},
      {"\\d\\D\\w\\W\\s\\S", {"1a_- x"}, {"aa_- x", "1a_--x"}},
      {"\\x41\\u00e9\\u{1F600}\\ud83d\\ude00\\t\\n\\cA\\0",
       {std::string("A\xc3\xa9\xf0\x9f\x98\x80\xf0\x9f\x98\x80\t\n\x01\0", 15)},
       {"A"}},
      {"\xc3\xa9+", {"\xc3\xa9\xc3\xa9"}, {"\xc3", "e"}},
      {"[\xce\xb1-\xcf\x89]", {"\xce\xb2"}, {"b"}},
      {"(?:a)(?<n>b)(?P<m>c)", {"abc"}, {"ab"}},
      {"^a$", {"a"}, {"a\n", "b"}},
      {"a^b", {}, {"ab"}},
      {"\\bab\\b", {"ab"}, {"a"}},
      {"a\\Bb c\\b", {"ab c"}, {"ab"}},
      {"a\\bb", {}, {"ab"}},
      {"(^|,)x(,|$)", {"x", ",x,"}, {"xx"}},
      {"\\/\\.\\*\\@", {"/.*@"}, {"/a"}},
  };
  for (const Case& one : cases) {
    if (one.good.empty() && one.bad.empty()) continue;
    const ByteDfa automaton = compile_regex(one.expression, RegexScope::kWhole);
    for (const std::string& text : one.good) EXPECT_TRUE(automaton.matches(text)) << one.expression << " should match " << text;
    for (const std::string& text : one.bad)
      EXPECT_FALSE(automaton.matches(text)) << one.expression << " should not match " << text;
    EXPECT_EQ(automaton.empty(), one.good.empty()) << one.expression;
  }
}

TEST(Regex, FindsPartsOfTexts) {
  const std::vector<Case> cases = {
      {"b",
       {"b", "abc",
        "\xc3\xa9"
        "b"},
       {"", "ac"}},
      {"^b", {"b", "bc"}, {"ab"}},
      {"b$", {"b", "ab"}, {"bc", "b\n"}},
      {"^a|b$", {"ax", "xb"}, {"xax", "bx"}},
      {"\\bcat\\b", {"cat", "a cat!", "cat\n"}, {"cats", "scat", "concat s"}},
      {"", {"", "x"}, {}},
      {"a(?=b)", {"ab", "xaby"}, {"a", "ac"}},
      {"a(?!b)", {"a", "ac", "aab a"}, {"ab", "b"}},
      {"^(?!.*secret)[a-z ]+$", {"a text"}, {"a secret text", "secret", ""}},
      {"^(?=.*\\d)(?=.*[a-z]).{3,}$", {"a1b", "12x"}, {"abc", "123", "a1"}},
      {"^(?=a(?=b)).b", {"ab", "abc"}, {"ac", "bb"}},
      {"x(?=\\b)", {"x", "x y"}, {"xy"}},
      {"(?:a(?!c)){2}", {"aa", "aab"}, {"aac", "a"}},
      // As Pydantic writes a Decimal.
      {"^(?!^[-+.]*$)[+-]?0*(?:\\d{0,3}|(?=[\\d.]{1,6}0*$)\\d{0,3}\\.\\d{0,2}0*)$",
       {"1", "-12.5", "999.99", "0", "+0.5", ".5"},
       {"", "-", ".", "1234", "1.234", "1e5"}},
  };
  for (const Case& one : cases) {
    const ByteDfa automaton = compile_regex(one.expression);
    for (const std::string& text : one.good) EXPECT_TRUE(automaton.matches(text)) << one.expression << " in " << text;
    for (const std::string& text : one.bad) EXPECT_FALSE(automaton.matches(text)) << one.expression << " not in " << text;
  }
}

// Dialects differ in whether an Arabic digit is \d and a Greek letter \w: neither what is written nor what is excluded has them.
TEST(Regex, LeavesOutWhatDialectsReadDifferently) {
  const std::string arabic_three = "\xd9\xa3", alpha = "\xce\xb1", no_break_space = "\xc2\xa0";
  for (
      const auto& [expression, text] : std::vector<std::pair<std::string, std::string>>{
          {"d", arabic_three}, {"D", arabic_three}, {"w", alpha}, {"W", alpha}, {"s", no_break_space}, {"S", no_break_space}}) {
    for (const std::string& whole : {"\\" + expression, "[\\" + expression + "]"}) {
      EXPECT_FALSE(compile_regex(whole, RegexScope::kWhole).matches(text)) << whole;
      EXPECT_TRUE(compile_regex(whole, RegexScope::kWhole, RegexBound::kPossible).matches(text)) << whole;
    }
  }
  EXPECT_FALSE(compile_regex("[^\\d]", RegexScope::kWhole).matches(arabic_three));
  EXPECT_TRUE(compile_regex("[^\\d]", RegexScope::kWhole).matches(alpha));
  EXPECT_FALSE(compile_regex("a$").matches("a\n"));
  EXPECT_TRUE(compile_regex("a$", RegexScope::kSearch, RegexBound::kPossible).matches("a\n"));
  EXPECT_FALSE(compile_regex("a\\b").matches("a" + alpha));
  EXPECT_FALSE(compile_regex("a\\B").matches("a" + alpha));
  EXPECT_FALSE(compile_regex("\\B").matches(""));
  EXPECT_TRUE(compile_regex("\\B", RegexScope::kSearch, RegexBound::kPossible).matches(""));
}

TEST(Regex, SaysWhatItDoesNotTake) {
  for (const auto& [expression, message] :
       std::vector<std::pair<const char*, const char*>>{{"(a)\\1", "byte 5: back-references are not supported"},
                                                        {"(?P<n>a)(?P=n)", "back-references"},
                                                        {"\\k<n>", "back-references"},
                                                        {"(?<=a)b", "look-behind"},
                                                        {"(?<!a)b", "look-behind"},
                                                        {"(?=a)*b", "a quantifier behind an assertion"},
                                                        {"(?i)a", "inline flags"},
                                                        {"a++", "possessive"},
                                                        {"a**", "a quantifier behind a quantifier"},
                                                        {"\\b+", "a quantifier behind an assertion"},
                                                        {"+a", "nothing to repeat"},
                                                        {"a{,2}", "{,n} is not supported"},
                                                        {"a{3,2}", "in the wrong order"},
                                                        {"a{5000}", "counts above 4096"},
                                                        {"\\p{L}", "\\p is not supported"},
                                                        {"[]a]", "begins with ']'"},
                                                        {"[a", "a '[' without ']'"},
                                                        {"[b-a]", "in the wrong order"},
                                                        {"[\\d-z]", "a range between classes"},
                                                        {"(a", "a '(' without ')'"},
                                                        {"a)", "a ')' without '('"},
                                                        {"\\q", "the escape \\q is not supported"},
                                                        {"\\u12", "four hexadecimal digits"},
                                                        {"\\ud800", "surrogate"},
                                                        {"a\\", "a backslash at the end"},
                                                        {"\xff", "malformed UTF-8"},
                                                        {"(a|b)*a(a|b){20}", "states"},
                                                        {"((a{100}){100}){100}", "too long"}}) {
    EXPECT_THAT([&] { compile_regex(expression); }, ThrowsMessage<ConfigError>(HasSubstr(message))) << expression;
  }
}

}  // namespace
}  // namespace nanochat
