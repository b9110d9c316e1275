#include "inference/calculator_tool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "inference/calculator.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

class CalculatorToolTest : public ::testing::Test {
 protected:
  TokenId special(std::string_view name) const { return tokenizer_.require_special(name); }
  // What is forced after the token, as text.
  std::string after(TokenId id) { return tokenizer_.decode(tool_->accept(id)); }
  std::string after(std::string_view name) { return after(special(name)); }
  void say(std::string_view text) {
    for (const TokenId id : tokenizer_.encode(text)) EXPECT_EQ(after(id), "") << text;
  }
  std::string call(std::string_view expression) {
    EXPECT_EQ(after(kPythonStart), "");
    say(expression);
    return after(kPythonEnd);
  }

  ByteBpeTokenizer tokenizer_{testing::small_bpe_definition()};
  std::unique_ptr<TokenTool> tool_ = make_calculator_tool(tokenizer_);
};

TEST_F(CalculatorToolTest, ForcesTheResultOfEachCall) {
  say("It is 3+4, so ");
  EXPECT_EQ(call("3+4"), "<|output_start|>7<|output_end|>");
  say(" is the answer");
  EXPECT_EQ(call("'strawberry'.count('r')"), "<|output_start|>3<|output_end|>");
}

TEST_F(CalculatorToolTest, ForcesNothingWithoutAResultAndGoesOnWorking) {
  for (const char* expression : {"", "1/0", "import os", "the thing"}) EXPECT_EQ(call(expression), "") << expression;
  EXPECT_EQ(call(std::string(1 << 20, '1')), "");
  EXPECT_EQ(after(kPythonEnd), "");  // no call was begun
  EXPECT_EQ(call("1+1"), "<|output_start|>2<|output_end|>");
}

TEST_F(CalculatorToolTest, ASecondStartBeginsANewExpression) {
  EXPECT_EQ(after(kPythonStart), "");
  say("1+");
  EXPECT_EQ(call("5"), "<|output_start|>5<|output_end|>");
}

TEST_F(CalculatorToolTest, OtherSpecialTokensMakeAnExpressionInvalid) {
  EXPECT_EQ(after(kPythonStart), "");
  say("1+");
  EXPECT_EQ(after(kUserStart), "");
  say("5");
  EXPECT_EQ(after(kPythonEnd), "");
}

TEST_F(CalculatorToolTest, IdsOutsideTheVocabularyAreIgnored) {
  EXPECT_EQ(after(kPythonStart), "");
  say("2*3");
  EXPECT_TRUE(tool_->accept(static_cast<TokenId>(tokenizer_.vocab_size()) + 5).empty());
  EXPECT_TRUE(tool_->accept(-1).empty());
  EXPECT_EQ(after(kPythonEnd), "<|output_start|>6<|output_end|>");
}

TEST(CalculatorTool, OfATokenizerWithoutTheTokensForcesNothing) {
  ByteBpeDefinition definition = testing::small_bpe_definition();
  definition.specials = {"<|bos|>"};
  const ByteBpeTokenizer tokenizer(definition);
  const auto tool = make_calculator_tool(tokenizer);
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) EXPECT_TRUE(tool->accept(id).empty()) << id;
}

TEST(CalculatorTool, NeedsItsFourTokens) {
  EXPECT_TRUE(has_calculator_tokens(ByteBpeTokenizer{testing::small_bpe_definition()}));
  auto definition = testing::small_bpe_definition();
  std::erase(definition.specials, std::string(kOutputEnd));
  EXPECT_FALSE(has_calculator_tokens(ByteBpeTokenizer{definition}));
}

}  // namespace
}  // namespace nanochat
