#include "training/finetune/conversation_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/errors.h"
#include "data/conversation_loader.h"
#include "training/finetune/testing_base.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr std::int64_t kMostTokens = 64;
using Tokens = std::vector<std::int32_t>;

// How often each conversation comes.
std::map<Tokens, int> counts(const RenderedConversations& rendered) {
  std::map<Tokens, int> counts;
  for (std::size_t i = 0; i < rendered.size(); ++i) ++counts[Tokens(rendered[i].begin(), rendered[i].end())];
  return counts;
}

class HeldOutConversations : public ::testing::Test {
 protected:
  // A hundred conversations, all different.
  HeldOutConversations() {
    std::string text;
    for (int i = 0; i < 100; ++i) {
      text += fmt::format(R"([{{"role":"user","content":"After {}?"}},{{"role":"assistant","content":"It is {}."}}])", i, i + 1) + "\n";
    }
    testing::write_text(folder_ / "chat.jsonl", text);
  }
  ConversationData load(const std::string& keys, double share = 0.1) const {
    ConversationDataOptions options;
    options.mixture = fmt::format(R"([{{"task": "conversations", "path": "{}"{}}}])", (folder_ / "chat.jsonl").string(), keys);
    options.validation_share = share;
    return load_conversation_data(options, *tokenizer_, kMostTokens, 1, 1);
  }
  testing::TemporaryDirectory folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = testing::byte_tokenizer(folder_.path());
};

TEST_F(HeldOutConversations, HoldsOutAShareBySeed) {
  const ConversationData data = load("");
  EXPECT_EQ(data.training->size(), 90U);
  EXPECT_EQ(data.validation->size(), 10U);
  const auto held_out = counts(*data.validation);
  EXPECT_EQ(held_out, counts(*load("").validation));
  for (const auto& [tokens, count] : counts(*data.training)) EXPECT_FALSE(held_out.contains(tokens));
}

TEST_F(HeldOutConversations, WhatAMixtureRepeatsIsNotOnBothSides) {
  const ConversationData data = load(R"(, "repeats": 3)");
  EXPECT_EQ(data.training->size(), 270U);
  EXPECT_EQ(data.validation->size(), 10U) << "each once";
  const auto training = counts(*data.training), held_out = counts(*data.validation);
  EXPECT_EQ(training.size(), 90U);
  EXPECT_EQ(held_out.size(), 10U);
  for (const auto& [tokens, count] : training) {
    EXPECT_EQ(count, 3);
    EXPECT_FALSE(held_out.contains(tokens));
  }
}

TEST_F(HeldOutConversations, OneConversationIsNotEnoughHoweverOftenItComes) {
  EXPECT_THAT([this] { load(R"(, "stop": 1, "repeats": 5)"); }, ThrowsMessage<DataError>(HasSubstr("one conversation cannot")));
}

}  // namespace
}  // namespace nanochat
