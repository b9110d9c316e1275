#include "inference/tool_use.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/format.h"
#include "inference/calculator.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

class ToolUseTest : public ::testing::Test {
 protected:
  TokenId special(std::string_view name) const { return tokenizer_.require_special(name); }
  void say(std::string_view text) {
    for (const TokenId id : tokenizer_.encode(text)) tools_.see(id);
  }
  // All that is forced, as text.
  std::string forced() {
    std::vector<TokenId> ids;
    while (tools_.forced()) {
      ids.push_back(*tools_.forced());
      tools_.see(ids.back());
    }
    return tokenizer_.decode(ids);
  }
  void call(std::string_view expression) {
    tools_.see(special(kPythonStart));
    say(expression);
    tools_.see(special(kPythonEnd));
  }

  ByteBpeTokenizer tokenizer_{testing::small_bpe_definition()};
  ToolUse tools_{tokenizer_};
};

TEST_F(ToolUseTest, ForcesTheResultOfACall) {
  say("It is 3+4, so ");
  EXPECT_EQ(tools_.forced(), std::nullopt);
  tools_.see(special(kPythonStart));
  say("3+4");
  EXPECT_EQ(tools_.forced(), std::nullopt);
  tools_.see(special(kPythonEnd));
  EXPECT_EQ(tools_.forced(), special(kOutputStart));
  EXPECT_EQ(forced(), "<|output_start|>7<|output_end|>");
  say(" is the answer");
  EXPECT_EQ(forced(), "");
  call("'strawberry'.count('r')");
  EXPECT_EQ(forced(), "<|output_start|>3<|output_end|>");
}

TEST_F(ToolUseTest, ForcesNothingWithoutAResult) {
  for (const char* expression : {"", "1/0", "import os", "the thing"}) {
    call(expression);
    EXPECT_EQ(forced(), "") << expression;
  }
  call(std::string(1 << 20, '1'));
  EXPECT_EQ(forced(), "");
  tools_.see(special(kPythonEnd));  // none was begun
  EXPECT_EQ(forced(), "");
  call("1+1");
  EXPECT_EQ(forced(), "<|output_start|>2<|output_end|>") << "and goes on working";
}

TEST_F(ToolUseTest, ASecondStartBeginsAnew) {
  tools_.see(special(kPythonStart));
  say("1+");
  tools_.see(special(kPythonStart));
  say("5");
  tools_.see(special(kPythonEnd));
  EXPECT_EQ(forced(), "<|output_start|>5<|output_end|>");
}

TEST_F(ToolUseTest, OtherSpecialTokensSpoilAnExpression) {
  tools_.see(special(kPythonStart));
  say("1+");
  tools_.see(special(kUserStart));
  say("5");
  tools_.see(special(kPythonEnd));
  EXPECT_EQ(forced(), "");
}

TEST_F(ToolUseTest, IdsBeyondTheVocabularyAreNothing) {
  tools_.see(special(kPythonStart));
  say("2*3");
  tools_.see(static_cast<TokenId>(tokenizer_.vocab_size()) + 5);
  tools_.see(-1);
  tools_.see(special(kPythonEnd));
  EXPECT_EQ(forced(), "<|output_start|>6<|output_end|>");
}

TEST_F(ToolUseTest, CopiesAreIndependent) {
  tools_.see(special(kPythonStart));
  say("2*3");
  ToolUse other = tools_;
  tools_.see(special(kPythonEnd));
  EXPECT_EQ(other.forced(), std::nullopt);
  EXPECT_EQ(forced(), "<|output_start|>6<|output_end|>");
  other.see(special(kPythonEnd));
  EXPECT_EQ(other.forced(), special(kOutputStart));
}

TEST(ToolUse, OfATokenizerWithoutTheTokensForcesNothing) {
  ByteBpeDefinition definition = testing::small_bpe_definition();
  definition.specials = {"<|bos|>"};
  const ByteBpeTokenizer tokenizer(definition);
  ToolUse tools(tokenizer);
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) tools.see(id);
  EXPECT_EQ(tools.forced(), std::nullopt);
}

}  // namespace
}  // namespace nanochat
