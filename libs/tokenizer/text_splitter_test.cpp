#include "tokenizer/text_splitter.h"

#include <gmock/gmock.h>

#include "core/errors.h"
#include "tokenizer/internal/hf_tokenizer_json.h"
#include "tokenizer/internal/unicode_versions.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using Behavior = SplitStep::Behavior;
using Kind = SplitStep::Kind;

std::vector<std::string> split(std::vector<SplitStep> steps, const std::string& text) {
  std::vector<std::string> pieces;
  TextSplitter(std::move(steps)).split(text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

SplitStep byte_level(bool prefix, bool regex) {
  return {Kind::kByteLevel, regex ? std::string(kGpt2Pattern) : "", Behavior::kIsolated, false, prefix};
}

// The expected pieces are those of the PyPI package tokenizers 0.23.
TEST(TextSplitter, HasTheFiveBehaviors) {
  const auto by_hyphen = [](Behavior behavior, bool invert) {
    return split({{Kind::kSplit, "-", behavior, invert, false}}, "the-final--countdown-");
  };
  for (const bool invert : {false, true}) {
    EXPECT_THAT(by_hyphen(Behavior::kIsolated, invert), ElementsAre("the", "-", "final", "-", "-", "countdown", "-"));
    EXPECT_THAT(by_hyphen(Behavior::kContiguous, invert), ElementsAre("the", "-", "final", "--", "countdown", "-"));
  }
  EXPECT_THAT(by_hyphen(Behavior::kRemoved, false), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(by_hyphen(Behavior::kRemoved, true), ElementsAre("-", "-", "-", "-"));
  EXPECT_THAT(by_hyphen(Behavior::kMergedWithPrevious, false), ElementsAre("the-", "final-", "-", "countdown-"));
  EXPECT_THAT(by_hyphen(Behavior::kMergedWithPrevious, true), ElementsAre("the", "-final", "-", "-countdown", "-"));
  EXPECT_THAT(by_hyphen(Behavior::kMergedWithNext, false), ElementsAre("the", "-final", "-", "-countdown", "-"));
  EXPECT_THAT(by_hyphen(Behavior::kMergedWithNext, true), ElementsAre("the-", "final-", "-", "countdown-"));
}

TEST(TextSplitter, StepsCutThePiecesOfTheStepBefore) {
  // Falcon's: behind ByteLevel the others see printable characters, as which a space is a letter.
  const std::vector<SplitStep> falcon = {
      {Kind::kSplit, std::string(unicode::kPunctuationPattern), Behavior::kContiguous, false, false},
      byte_level(false, true),
      {Kind::kSplit, std::string(unicode::kNumericPattern), Behavior::kContiguous, false, false},
      {Kind::kSplit, "[0-9][0-9][0-9]", Behavior::kIsolated, false, false}};
  EXPECT_THAT(split(falcon, "H\u00E9!!, 12345678 ok"), ElementsAre("H\u00E9", "!!,", " ", "123", "456", "78", " ok"));
}

TEST(TextSplitter, EveryPieceGetsThePrefixSpace) {
  const SplitStep digits = {Kind::kSplit, std::string(unicode::kNumericPattern), Behavior::kIsolated, false, false};
  EXPECT_THAT(split({digits, byte_level(true, false)}, "ab12 c"), ElementsAre(" ab", " 1", " 2", " c"));
  EXPECT_THAT(split({byte_level(true, true)}, "ab c"), ElementsAre(" ab", " c"));
  EXPECT_THAT(split({byte_level(true, true)}, ""), ElementsAre());
}

TEST(TextSplitter, EmptyMatchesCut) {
  EXPECT_THAT(split({{Kind::kSplit, R"((?=(\d{3})+(?!\d)))", Behavior::kMergedWithPrevious, false, false}}, "x1234567"),
              ElementsAre("x1", "234", "567"));
  EXPECT_THAT(split({{Kind::kSplit, "(?:)", Behavior::kIsolated, false, false}}, "abc"), ElementsAre("a", "b", "c"));
}

}  // namespace
}  // namespace nanochat
