#include "checkpoint/internal/hugging_face_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/testing.h"
#include "core/errors.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

TEST(HuggingFaceFiles, GenerationEndsWhereTheAssistantDoes) {
  const testing::TemporaryDirectory folder;
  const auto chat = testing::byte_tokenizer(folder.path());
  EXPECT_EQ(json(generation_config(chat.get())),
            json({{"bos_token_id", chat->require_special(kBos)}, {"eos_token_id", chat->require_special(kAssistantEnd)}}));
  const auto plain = testing::byte_tokenizer(folder.path(), "none");
  EXPECT_EQ(json(generation_config(plain.get())), json::object());
  EXPECT_EQ(json(generation_config(nullptr)), json::object());
}

TEST(HuggingFaceFiles, ChatTemplateNeedsChatTokens) {
  const testing::TemporaryDirectory folder;
  const std::string before = R"({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>"})";
  const json chat = json::parse(with_chat_template(before, *testing::byte_tokenizer(folder.path()), 128));
  EXPECT_EQ(chat.at("tokenizer_class"), "PreTrainedTokenizerFast");
  EXPECT_EQ(chat.at("model_max_length"), 128);
  for (const std::string_view token : kChatSpecialTokens) {
    EXPECT_THAT(chat.at("chat_template").get<std::string>(), HasSubstr(std::string(token)));
  }
  const json plain = json::parse(with_chat_template(before, *testing::byte_tokenizer(folder.path(), "none"), 128));
  EXPECT_FALSE(plain.contains("chat_template"));
  EXPECT_THROW(with_chat_template("[]", *testing::byte_tokenizer(folder.path()), 128), CheckpointError);
}

}  // namespace
}  // namespace nanochat
