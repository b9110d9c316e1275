#include "serving/internal/answer_text.h"

#include <gmock/gmock.h>

#include "serving/testing.h"

namespace nanochat {
namespace {

const testing::ChatByteTokenizer& tokenizer() {
  static const testing::ChatByteTokenizer one;
  return one;
}

// Feeds bytes one token each and joins what comes, piece by piece.
std::string feed(AnswerText& text, const std::string& bytes, bool finish = true) {
  std::string out;
  for (const char c : bytes) {
    const bool more = text.push({static_cast<unsigned char>(c), -1.0});
    out += text.take_text();
    if (!more) return out;
  }
  if (finish) text.finish();
  return out + text.take_text();
}

TEST(AnswerText, EndsBeforeAStopStringAcrossTokens) {
  AnswerText text(tokenizer(), {"END", "enough"}, false);
  EXPECT_EQ(feed(text, "one ENOUGH EN END more"), "one ENOUGH EN ");
}

TEST(AnswerText, NamesTheStopStringThatItFound) {
  for (const auto& [text, found] :
       std::vector<std::pair<std::string, std::string>>{{"one enough", "enough"}, {"EN END", "END"}, {"EN", ""}}) {
    AnswerText answer(tokenizer(), {"END", "enough"}, false);
    feed(answer, text);
    EXPECT_EQ(answer.stop_string(), found) << text;
  }
}

TEST(AnswerText, HandsOutNoPartOfAStopString) {
  AnswerText text(tokenizer(), {"abc"}, false);
  EXPECT_EQ(feed(text, "xab", false), "x");
  EXPECT_EQ(feed(text, "abd", false), "ababd");
  EXPECT_EQ(feed(text, "ab"), "ab");  // it was none after all
}

TEST(AnswerText, FindsTheFirstOfOverlappingStops) {
  AnswerText text(tokenizer(), {"aab", "ab"}, false);
  EXPECT_EQ(feed(text, "aaab"), "a");
  EXPECT_EQ(text.stop_string(), "aab");
}

TEST(AnswerText, HandsOutWholeCharacters) {
  AnswerText text(tokenizer(), {}, false);
  EXPECT_EQ(feed(text, "\xc3", false), "");
  EXPECT_EQ(feed(text, "\xa9", false), "\xc3\xa9");
  EXPECT_EQ(feed(text, "\xe2\x82"), "\xef\xbf\xbd");
}

TEST(AnswerText, LeavesOutSpecialTokensAndInChatsToolCalls) {
  for (const bool hide : {true, false}) {
    AnswerText text(tokenizer(), {}, hide);
    const auto special = [](std::string_view name) { return SampledToken{*tokenizer().special_id(name), 0.0}; };
    std::string out = feed(text, "a", false);
    text.push(special(kPythonStart));
    out += feed(text, "1+1", false);
    text.push(special(kPythonEnd));
    text.push(special(kOutputStart));
    out += feed(text, "2", false);
    text.push(special(kOutputEnd));
    text.push({9999, 0.0});  // of the model's padding
    out += feed(text, "b");
    EXPECT_EQ(out, hide ? "ab" : "a1+12b");
  }
}

// Feeds a call of the calculator as the engine gives it.
void feed_call(AnswerText& text, const std::string& expression, const std::string& result, bool forced = true) {
  const auto special = [](std::string_view name) { return SampledToken{*tokenizer().special_id(name), 0.0}; };
  text.push(special(kPythonStart));
  for (const char c : expression) text.push({static_cast<unsigned char>(c), -1.0});
  text.push(special(kPythonEnd));
  text.push(special(kOutputStart), {}, forced);
  for (const char c : result) text.push({static_cast<unsigned char>(c), 0.0}, {}, forced);
  text.push(special(kOutputEnd), {}, forced);
}

TEST(AnswerText, ListsWhatWasComputedAndWhere) {
  AnswerText text(tokenizer(), {}, true);
  EXPECT_EQ(feed(text, "\xc3\xa9 is ", false), "\xc3\xa9 is ");
  feed_call(text, "2+3", "5");
  EXPECT_EQ(feed(text, "5, and ", false), "5, and ");
  feed_call(text, "6*7", "42");
  feed_call(text, "1/0", "9", false);  // the model's own result is none
  const auto calculations = text.take_calculations();
  ASSERT_EQ(calculations.size(), 2u);
  EXPECT_EQ(calculations[0].expression, "2+3");
  EXPECT_EQ(calculations[0].result, "5");
  EXPECT_EQ(calculations[0].offset, 5);
  EXPECT_EQ(calculations[1].result, "42");
  EXPECT_EQ(calculations[1].index, 1);
  EXPECT_EQ(calculations[1].offset, 12);
  EXPECT_TRUE(text.take_calculations().empty());
  EXPECT_EQ(feed(text, "!"), "!");
}

TEST(AnswerText, TokensOfACallAreThoseOfATextInCompletionsOnly) {
  for (const bool hide : {true, false}) {
    AnswerText text(tokenizer(), {}, hide);
    feed(text, "a", false);
    feed_call(text, "1+1", "2");
    feed(text, "b");
    EXPECT_EQ(text.take_tokens().size(), hide ? 2u : 10u);
  }
}

TEST(AnswerText, LooksForStopStringsInTheTextAlone) {
  AnswerText text(tokenizer(), {"1+1", "ab"}, true);
  EXPECT_EQ(feed(text, "xa", false), "x");
  feed_call(text, "1+1", "2");
  EXPECT_TRUE(text.take_calculations().empty());  // the text before it waits
  EXPECT_FALSE(text.push({'b', -1.0}));           // beside the "a" for who reads the text
  text.finish();
  EXPECT_EQ(text.take_text(), "");
  EXPECT_TRUE(text.take_calculations().empty());  // and the call is behind the end
  AnswerText open(tokenizer(), {"ab"}, true);
  feed(open, "xa", false);
  feed_call(open, "1+1", "2");
  open.finish();
  EXPECT_EQ(open.take_calculations().size(), 1u);
}

TEST(AnswerText, GivesTokensWithTheirText) {
  AnswerText text(tokenizer(), {"cd"}, false);
  feed(text, "abc", false);
  EXPECT_EQ(text.take_tokens().size(), 2u);  // c may be taken back
  feed(text, "d", false);
  EXPECT_TRUE(text.take_tokens().empty());
  AnswerText open(tokenizer(), {"cd"}, false);
  feed(open, "abc");
  const auto tokens = open.take_tokens();
  ASSERT_EQ(tokens.size(), 3u);
  EXPECT_EQ(tokens[2].offset, 2u);
}

}  // namespace
}  // namespace nanochat
