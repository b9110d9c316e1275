#include "tokenizer/pretokenizer.h"

#include <vector>

#include <gmock/gmock.h>

#include "core/errors.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  const Pretokenizer pretokenizer(resolve_pattern(pattern));
  std::vector<std::string> found;
  Pretokenizer::Position position;
  for (std::size_t begin = 0, end = 0; pretokenizer.next(text, position, begin, end);) {
    if (end > begin) found.push_back(text.substr(begin, end - begin));
  }
  return found;
}

TEST(Pretokenizer, SplitsAsNanochat) {
  EXPECT_THAT(matches("nanochat", "Hello, world! It's 12345  ok\n\n  x"),
              ElementsAre("Hello", ",", " world", "!", " It", "'s", " ", "12", "34", "5", " ", " ok", "\n\n", " ", " x"));
  EXPECT_THAT(matches("nanochat", "WE'LL we'Ve"), ElementsAre("WE", "'LL", " we", "'Ve"));
}

TEST(Pretokenizer, SplitsAsGpt2AndCl100k) {
  EXPECT_THAT(matches("gpt2", "it's 12345  ok"), ElementsAre("it", "'s", " 12345", " ", " ok"));
  EXPECT_THAT(matches("gpt2", "IT'S"), ElementsAre("IT", "'", "S"));
  EXPECT_THAT(matches("cl100k", "12345 ok?!\n\n  "), ElementsAre("123", "45", " ok", "?!\n\n", "  "));
}

TEST(Pretokenizer, WhiteSpaceIsUnicodes) {
  // Rust's \s has U+0085 and U+2003; neither U+180E nor U+200B nor U+001C.
  EXPECT_THAT(matches(R"(\s)", "a\xC2\x85\xE2\x80\x83\xE1\xA0\x8E\xE2\x80\x8B\x1C\x0B"),
              ElementsAre("\xC2\x85", "\xE2\x80\x83", "\x0B"));
  EXPECT_THAT(matches(R"([^\s])", " \xE1\xA0\x8E"), ElementsAre("\xE1\xA0\x8E"));
  EXPECT_THAT(matches(R"(\S+)", " \xE1\xA0\x8E\x1C "), ElementsAre("\xE1\xA0\x8E\x1C"));
}

TEST(Pretokenizer, KnowsLettersAndNumbersOfUnicode16) {
  EXPECT_THAT(matches(R"(\p{L})", "\xF0\xB1\x8D\x90\xF0\x96\xB5\xB0"), ElementsAre("\xF0\xB1\x8D\x90"));    // U+31350
  EXPECT_THAT(matches(R"([\p{N}])", "\xF0\xB1\x8D\x90\xF0\x96\xB5\xB0"), ElementsAre("\xF0\x96\xB5\xB0"));  // U+16D70
  EXPECT_THAT(matches(R"([^\p{L}])", "\xF0\xB1\x8D\x90-"), ElementsAre("-"));
}

TEST(Pretokenizer, DollarIsTheEndOfTheText) { EXPECT_THAT(matches(R"(a$)", "a\n"), IsEmpty()); }

std::vector<std::string> pieces(const std::string& pattern, const std::string& text) {
  std::vector<std::string> found;
  Pretokenizer(pattern).for_each_piece(text, [&](std::string_view piece) { found.emplace_back(piece); });
  return found;
}

// As Hugging Face's Split does with the same patterns.
TEST(Pretokenizer, EmptyMatchesSplit) {
  EXPECT_THAT(pieces(R"(b*)", "abba"), ElementsAre("a", "bb", "a"));
  EXPECT_THAT(pieces(R"(\d*)", "ab12"), ElementsAre("a", "b", "12"));
  EXPECT_THAT(pieces(R"((?=(\d{3})+(?!\d)))", "x1234567"), ElementsAre("x1", "234", "567"));
  EXPECT_THAT(pieces("x", ""), IsEmpty());
}

TEST(Pretokenizer, KnowsCategoriesWordsAndScripts) {
  EXPECT_THAT(matches(R"(\p{Uppercase_Letter}|\p{sc}|\d|\p{^Lu}{9})", "a\xC3\x89$1"), ElementsAre("\xC3\x89", "$", "1"));
  EXPECT_THAT(matches(R"(\w+)", "\xE2\x81\xB4 e\xCC\x81_\xE2\x85\xA0 \xC2\xB2-\xE2\x80\x8D"),
              ElementsAre("e\xCC\x81_\xE2\x85\xA0", "\xC2\xB2"));
  EXPECT_THAT(matches(R"(\b.)", "ab c"), ElementsAre("a", " ", "c"));
  EXPECT_THAT(matches(R"(\p{Han}+)", "\xE4\xB8\x80\xE3\x80\x82\xF0\xB1\x8D\x90"),
              ElementsAre("\xE4\xB8\x80", "\xF0\xB1\x8D\x90"));
  EXPECT_THAT(matches(R"([^\S\n]+)", "a \t\nb"), ElementsAre(" \t"));
}

TEST(Pretokenizer, RewritesOnlyWhatDiffers) {
  EXPECT_EQ(to_pcre2(R"(a\\s[]x]\n\)"), R"(a\\s[]x]\n\)");
  EXPECT_THAT(to_pcre2(R"([^\s])"), HasSubstr(R"([^\x{9}-\x{D}\x{20})"));
  EXPECT_THAT(to_pcre2(R"(\s)"), HasSubstr(R"([\x{9}-\x{D}\x{20})"));
}

TEST(Pretokenizer, NamesPublishedPatterns) {
  EXPECT_EQ(resolve_pattern("nanochat"), kNanochatPattern);
  EXPECT_EQ(resolve_pattern("cl100k"), kCl100kPattern);
  EXPECT_EQ(resolve_pattern(R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)"),
            kGpt2Pattern);
  EXPECT_EQ(resolve_pattern("x+"), "x+");
  EXPECT_EQ(pattern_name(kGpt2Pattern), "gpt2");
  EXPECT_EQ(pattern_name("x+"), "custom");
}

TEST(Pretokenizer, LongRunsDoNotExhaustTheStack) {
  const std::string letters(1'000'000, 'a'), spaces(3'000'000, ' ');
  EXPECT_EQ(matches("nanochat", letters).size(), 1U);
  EXPECT_EQ(matches("nanochat", spaces).size(), 1U);
  // Each repetition of a group keeps a backtracking point; the JIT stack of 16 MiB does not hold them.
  EXPECT_EQ(matches("(?:a|b)+x?", letters).size(), 1U);
}

TEST(Pretokenizer, SaysWhatIsWrong) {
  EXPECT_ERROR(Pretokenizer("a(b"), TokenizerError, "split pattern \"a(b\" does not compile", "parenthes");
  const Pretokenizer hopeless("(a+)+$");
  Pretokenizer::Position position;
  std::size_t begin = 0, end = 0;
  EXPECT_ERROR(hopeless.next(std::string(40, 'a') + "b", position, begin, end), TokenizerError,
               "at byte 0 of a text of 41 bytes", "match limit");
}

TEST(Pretokenizer, CanBeMoved) {
  Pretokenizer first("a");
  Pretokenizer second(std::move(first));
  first = Pretokenizer("b");
  Pretokenizer::Position position, other;
  std::size_t begin = 0, end = 0;
  EXPECT_TRUE(second.next("ba", position, begin, end));
  EXPECT_EQ(begin, 1U);
  EXPECT_TRUE(first.next("ba", other, begin, end));
  EXPECT_EQ(begin, 0U);
}

}  // namespace
}  // namespace nanochat
