#include "tokenizer/internal/regex_dialect.h"

#include <gmock/gmock.h>

#include "core/errors.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

TEST(RegexDialect, LeavesPublishedPatternsAlone) {
  for (const std::string_view pattern :
       {kNanochatPattern, kGpt2Pattern,
        std::string_view(R"((?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+)"),
        std::string_view(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[\p{P}\p{S}]+|(?=(\d{3})+(?!\d)))")}) {
    EXPECT_EQ(from_oniguruma(pattern), pattern);
    EXPECT_EQ(to_oniguruma(pattern), pattern);
  }
}

TEST(RegexDialect, TranslatesWhatDiffers) {
  EXPECT_EQ(from_oniguruma("a$"), R"(a(?=\n|$))");
  EXPECT_EQ(from_oniguruma("^a"), R"((?:^|(?<=\n)(?!$))a)");
  EXPECT_EQ(from_oniguruma(R"(\Aa\z)"), "^a$");
  EXPECT_EQ(from_oniguruma(R"(\p{N}{1,3}+)"), R"((?:\p{N}{1,3})+)");
  EXPECT_EQ(from_oniguruma("(?:ab){2}?"), "(?:(?:ab){2})?");
  EXPECT_EQ(from_oniguruma("x{,4}y{2,}?z++"), "x{0,4}y{2,}?z++");
  EXPECT_EQ(from_oniguruma(R"(\h[\h]\H\v\u00e9)"), R"([0-9A-Fa-f][0-9A-Fa-f][^0-9A-Fa-f]\x0B\x{00e9})");
  EXPECT_EQ(from_oniguruma("(?m:.)(?i)a|b"), "(?s:.)(?i:a|b)");
  EXPECT_EQ(from_oniguruma("(?i)a|b"), "(?i)a|b");
  EXPECT_EQ(from_oniguruma("(a(?i)b|c)d"), "(a(?i:b|c))d");
  EXPECT_EQ(from_oniguruma(R"(a{x}\{)"), R"(a{x}\{)");
  EXPECT_EQ(from_oniguruma("a(?#note)b"), "ab");
  EXPECT_EQ(to_oniguruma("^a$"), R"(\Aa\z)");
  EXPECT_EQ(to_oniguruma(R"(\p{N}{1,3}+)"), R"((?>\p{N}{1,3}))");
  EXPECT_EQ(to_oniguruma("(?s:.)[[a&&b]"), R"((?m:.)[\[a&\&b])");
}

TEST(RegexDialect, ComesBackAsItWas) {
  for (const char* pattern : {"^a+$", R"(\p{N}{1,3}+|(ab){2,}+|x)", "(?s:.)", "(?i)ab|c", "[]a]+", R"(\s++$)", "a{2,3}?"}) {
    EXPECT_EQ(from_oniguruma(to_oniguruma(pattern)), pattern);
  }
}

TEST(RegexDialect, NamesWhatItCannotSay) {
  EXPECT_ERROR(from_oniguruma("[[:alpha:]]"), TokenizerError, "the pattern \"[[:alpha:]]\" uses a POSIX bracket");
  EXPECT_ERROR(from_oniguruma("[a-z&&[^b]]"), TokenizerError, "uses the intersection of sets");
  EXPECT_ERROR(from_oniguruma("[a[b]]"), TokenizerError, "uses a set inside a set");
  EXPECT_ERROR(from_oniguruma("(?x: a )"), TokenizerError, "uses \"(?x\"");
  EXPECT_ERROR(from_oniguruma("(?~ab)"), TokenizerError, "uses \"(?~\"");
  EXPECT_ERROR(from_oniguruma(R"(\X)"), TokenizerError, "uses \"\\X\"");
  EXPECT_ERROR(from_oniguruma(R"(\g<1>)"), TokenizerError, "uses \"\\g\"");
  EXPECT_ERROR(from_oniguruma(R"(\xE9)"), TokenizerError, "uses \"\\xE9\"");
  EXPECT_ERROR(to_oniguruma("a(?i)b|c"), TokenizerError, "uses \"(?i)\" amid a group");
}

TEST(RegexDialect, LiteralsMatchThemselves) {
  const std::string text = "a.b*[c]{2}\\$^|(?#-~&";
  EXPECT_EQ(from_oniguruma(literal_pattern(text)), literal_pattern(text));
  const Pretokenizer pretokenizer(literal_pattern(text));
  Pretokenizer::Position position;
  std::size_t begin = 0, end = 0;
  ASSERT_TRUE(pretokenizer.next("x" + text, position, begin, end));
  EXPECT_EQ(begin, 1U);
  EXPECT_EQ(end, 1 + text.size());
}

}  // namespace
}  // namespace nanochat
