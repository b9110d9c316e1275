#include "tokenizer/tiktoken_file.h"

#include <gmock/gmock.h>

#include "core/errors.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;

TEST(TiktokenFile, ReadsRanksInAnyOrderAndLineEnding) {
  EXPECT_THAT(parse_tiktoken_ranks("Yg== 1\r\nYQ== 0\n\nYWJj 2", "f"), ElementsAre("a", "b", "abc"));
  EXPECT_THAT(parse_tiktoken_ranks("+/A= 0\n", "f"), ElementsAre("\xFB\xF0"));
}

TEST(TiktokenFile, ReadsWhatTheTestsWrite) {
  const auto tokens = testing::small_ranks();
  EXPECT_EQ(parse_tiktoken_ranks(testing::rank_file(tokens), "f"), tokens);
}

TEST(TiktokenFile, NamesTheLineAtFault) {
  for (const char* line : {"YQ", "YQ==", "YQ== ", "YQ== x", "YQ== 1x", "YQ== -1", "Y!== 1", "YQ= 1", " 1", "YQ==  1"}) {
    EXPECT_ERROR(parse_tiktoken_ranks("Yg== 0\n" + std::string(line) + "\n", "some.tiktoken"), TokenizerError,
                 "some.tiktoken:2: not a line of a tiktoken rank file; expected \"BASE64 RANK\"");
  }
  EXPECT_ERROR(parse_tiktoken_ranks("YQ== 0\nYQ== 1\n", "f"), TokenizerError, "f:2: the same token as on line 1");
  EXPECT_ERROR(parse_tiktoken_ranks("YQ== 0\nYg== 0\n", "f"), TokenizerError, "f:2: rank 0 stands on line 1 already");
  EXPECT_ERROR(parse_tiktoken_ranks("YQ== 0\nYg== 2\n", "f"), TokenizerError, "f: rank 1 is missing; line 2 goes up to 2");
  EXPECT_ERROR(parse_tiktoken_ranks("YQ== 99999999999\n", "f"), TokenizerError, "f:1: rank 99999999999 is too large");
  EXPECT_ERROR(parse_tiktoken_ranks("\n", "f"), TokenizerError, "f: no ranks");
}

TEST(TiktokenFile, UnknownFilesHaveNoPublishedPattern) { EXPECT_EQ(published_pattern("YQ== 0\n"), ""); }

}  // namespace
}  // namespace nanochat
