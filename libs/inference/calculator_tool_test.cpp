#include "inference/calculator_tool.h"

#include <gtest/gtest.h>

#include "tokenizer/special_tokens.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

TEST(CalculatorTool, AnswersACallWithItsResult) {
  const ByteBpeTokenizer tokenizer{testing::small_bpe_definition()};
  const auto tool = make_calculator_tool(tokenizer);
  for (int call = 0; call < 2; ++call) {
    EXPECT_TRUE(tool->accept(tokenizer.require_special(kPythonStart)).empty());
    for (const TokenId id : tokenizer.encode("30+4")) EXPECT_TRUE(tool->accept(id).empty());
    const auto forced = tool->accept(tokenizer.require_special(kPythonEnd));
    EXPECT_EQ(tokenizer.decode(forced), "<|output_start|>34<|output_end|>");
  }
  EXPECT_TRUE(tool->accept(tokenizer.require_special(kPythonEnd)).empty());
}

TEST(CalculatorTool, NeedsItsFourTokens) {
  EXPECT_TRUE(has_calculator_tokens(ByteBpeTokenizer{testing::small_bpe_definition()}));
  auto definition = testing::small_bpe_definition();
  std::erase(definition.specials, std::string(kOutputEnd));
  EXPECT_FALSE(has_calculator_tokens(ByteBpeTokenizer{definition}));
}

}  // namespace
}  // namespace nanochat
