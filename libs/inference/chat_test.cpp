#include "inference/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Parts = std::vector<MessagePart>;

class Chat : public ::testing::Test {
 protected:
  // Text in which the names of special tokens stand for them.
  std::vector<TokenId> ids(std::string text) const {
    std::vector<TokenId> all;
    while (!text.empty()) {
      std::size_t next = text.size();
      std::string_view found;
      for (const std::string_view name : kChatSpecialTokens) {
        if (text.find(name) < next) {
          next = text.find(name);
          found = name;
        }
      }
      tokenizer_.encode(text.substr(0, next), all);
      if (!found.empty()) all.push_back(tokenizer_.require_special(found));
      text.erase(0, next + found.size());
    }
    return all;
  }
  std::string shown(const std::string& text) const {
    AnswerView view(tokenizer_);
    std::string all;
    for (const TokenId id : ids(text)) all += view.push(id);
    return all + view.flush();
  }
  ByteBpeTokenizer tokenizer_{testing::small_bpe_definition()};
};

TEST_F(Chat, PromptsLoseTheirOldestExchanges) {
  Conversation conversation{
      {{"system", "S"}, {"user", "aaa"}, {"assistant", "bbb"}, {"user", "c"}, {"assistant", "d"}, {"user", "e"}}};
  const auto text = [&](std::int64_t max_tokens) {
    return tokenizer_.decode(fit_prompt(tokenizer_, conversation, max_tokens).ids);
  };
  const std::string last = "<|bos|><|user_start|>S\n\ne<|user_end|><|assistant_start|>";
  EXPECT_EQ(fit_prompt(tokenizer_, conversation, 100).dropped, 0U);
  EXPECT_EQ(text(100), tokenizer_.decode(render_prompt(tokenizer_, conversation, 100)));
  EXPECT_EQ(text(static_cast<std::int64_t>(ids(last).size())), last);
  EXPECT_EQ(fit_prompt(tokenizer_, conversation, static_cast<std::int64_t>(ids(last).size())).dropped, 4U);
  const std::string two =
      "<|bos|><|user_start|>S\n\nc<|user_end|><|assistant_start|>d<|assistant_end|><|user_start|>e<|user_end|><|assistant_"
      "start|>";
  EXPECT_EQ(text(static_cast<std::int64_t>(ids(two).size())), two);
  EXPECT_THAT([&] { text(static_cast<std::int64_t>(ids(last).size()) - 1); },
              ThrowsMessage<DataError>(HasSubstr("the message has 7 tokens with what belongs to it, where 6 have room")));
  conversation.messages.pop_back();
  EXPECT_THROW(text(100), DataError);
}

TEST_F(Chat, VeryLongConversationsFitToo) {
  Conversation conversation;
  for (int i = 0; i < 5000; ++i) {
    conversation.messages.emplace_back("user", "question " + std::to_string(i));
    conversation.messages.emplace_back("assistant", "answer");
  }
  conversation.messages.emplace_back("user", "last");
  const ChatPrompt prompt = fit_prompt(tokenizer_, conversation, 500);
  EXPECT_LE(prompt.ids.size(), 500U);
  EXPECT_GT(prompt.ids.size(), 450U) << "no more is dropped than has to be";
  EXPECT_EQ(prompt.dropped % 2, 0U);
}

TEST_F(Chat, AnswersHaveParts) {
  const auto parts = [&](const std::string& text) { return answer_parts(tokenizer_, ids(text)); };
  EXPECT_EQ(
      parts("It is <|python_start|>6*7<|python_end|><|output_start|>42<|output_end|>42."),
      (Parts{
          {PartType::kText, "It is "}, {PartType::kPython, "6*7"}, {PartType::kPythonOutput, "42"}, {PartType::kText, "42."}}));
  EXPECT_EQ(parts("<|python_start|>6*"), (Parts{{PartType::kPython, "6*"}})) << "cut off";
  EXPECT_EQ(parts("<|python_start|><|python_end|>x"), (Parts{{PartType::kPython, ""}, {PartType::kText, "x"}}));
  EXPECT_EQ(parts("a<|user_start|>b<|python_end|>c"), (Parts{{PartType::kText, "abc"}}));
  EXPECT_EQ(parts(""), Parts{});
  EXPECT_EQ(answer_parts(tokenizer_, std::vector<TokenId>{0xC3, 0x41, -5, 100000}), (Parts{{PartType::kText,
                                                                                            "\xef\xbf\xbd"
                                                                                            "A"}}));
}

TEST_F(Chat, AnswersAreShownWithTheirCalls) {
  EXPECT_EQ(shown("It is <|python_start|>6*7<|python_end|><|output_start|>42<|output_end|>42."), "It is <<6*7=42>>42.");
  EXPECT_EQ(shown("<|python_start|>1/0<|python_end|> hm"), "<<1/0>> hm");
  EXPECT_EQ(shown("<|python_start|>1/0<|python_end|>"), "<<1/0>>");
  EXPECT_EQ(shown("<|python_start|>1+"), "<<1+>>");
  EXPECT_EQ(shown("caf\xc3\xa9 <|user_end|>x"), "caf\xc3\xa9 x");
  EXPECT_EQ(shown("\xc3<|python_start|>1<|python_end|>"), "\xef\xbf\xbd<<1>>");
  EXPECT_EQ(shown(""), "");
}

TEST(EndTokens, AreTheKnownOnesAndTheNamedBeginning) {
  ByteBpeDefinition definition = testing::small_bpe_definition();
  definition.specials = {"<|begin|>", "<|bos|>", "<|assistant_end|>"};
  ByteBpeTokenizer tokenizer(definition);
  const std::vector<TokenId> known = {tokenizer.require_special("<|bos|>"), tokenizer.require_special("<|assistant_end|>")};
  EXPECT_EQ(end_tokens(tokenizer), known);
  tokenizer.set_bos_token("<|bos|>");
  EXPECT_EQ(end_tokens(tokenizer), known) << "once";
  tokenizer.set_bos_token("<|begin|>");
  EXPECT_THAT(end_tokens(tokenizer), ::testing::ElementsAre(known[0], known[1], tokenizer.require_special("<|begin|>")));
}

}  // namespace
}  // namespace nanochat
