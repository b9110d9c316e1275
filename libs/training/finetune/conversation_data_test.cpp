#include "training/finetune/conversation_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/log.h"
#include "data/batches/conversation_loader.h"
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
      text += fmt::format(R"([{{"role":"user","content":"After {}?"}},{{"role":"assistant","content":"It is {}."}}])", i,
                          i + 1) +
              "\n";
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

TEST_F(HeldOutConversations, AShareOfZeroHoldsOutNone) {
  const ConversationData data = load("", 0.0);
  EXPECT_EQ(data.training->size(), 100U);
  EXPECT_EQ(data.validation, nullptr);
  EXPECT_EQ(load(R"(, "stop": 1)", 0.0).training->size(), 1U);
}

// Conversations that are cut before an answer, beside good ones.
class UselessConversations : public HeldOutConversations {
 protected:
  static std::string row(const std::string& question, const std::string& more = "") {
    return fmt::format(R"({{"messages":[{{"role":"user","content":"{}"}},{{"role":"assistant","content":"ok"{}}}]}})", question,
                       more) +
           "\n";
  }
  static std::string cut() { return row(std::string(kMostTokens, 'x')); }
  static std::string unlearned() { return row("q", R"(,"weight":0)"); }
  ConversationData load_files(const std::string& training, const std::string& validation,
                              ConversationPacking packing = ConversationPacking::kBestFit) const {
    ConversationDataOptions options;
    testing::write_text(folder_ / "training.jsonl", training);
    options.data_dir = {(folder_ / "training.jsonl").string()};
    if (!validation.empty()) {
      testing::write_text(folder_ / "validation.jsonl", validation);
      options.validation_data_dir = {(folder_ / "validation.jsonl").string()};
    }
    return load_conversation_data(options, *tokenizer_, kMostTokens, 1, 1, packing);
  }
};

TEST_F(UselessConversations, AreCountedAndLeftOut) {
  const auto log_file = folder_ / "log.txt";
  configure_logging({.file = log_file});
  const ConversationData data = load_files(cut() + row("q") + unlearned() + cut() + row("p"), "");
  configure_logging({});
  const std::string log = read_file(log_file);
  EXPECT_EQ(data.training->size(), 1U) << "one of the two good ones is held out";
  EXPECT_EQ(data.validation->size(), 1U);
  EXPECT_TRUE(data.validation->has_target(0, ConversationPacking::kBestFit));
  EXPECT_THAT(log, HasSubstr("training: 2 of 5 conversations have more than 64 tokens; the rest of each is cut off"));
  EXPECT_THAT(
      log,
      HasSubstr("training: 3 of 5 conversations are left out, because nothing can be learned from them: 2 are cut after 64 "
                "tokens, before there is anything to learn; in 1 no message of the assistant is learned"));
}

TEST_F(UselessConversations, AreAnErrorWhenThereIsNothingElse) {
  EXPECT_THAT([&] { load_files(cut() + cut(), ""); },
              ThrowsMessage<DataError>(
                  HasSubstr("training: nothing can be learned from any of the 2 conversations: cut after 64 tokens, "
                            "before there is anything to learn; use shorter conversations or a model with a longer")));
  EXPECT_THAT(
      [&] { load_files(unlearned(), ""); },
      ThrowsMessage<DataError>(HasSubstr("training: nothing can be learned from any of the 1 conversations: no message of the "
                                         "assistant is learned")));
  EXPECT_THAT([&] { load_files(row("q"), cut()); }, ThrowsMessage<DataError>(HasSubstr("validation: nothing can be learned")));
  EXPECT_THAT([&] { load_files(cut() + cut() + row("q"), ""); },
              ThrowsMessage<DataError>(HasSubstr("one conversation cannot")));
}

TEST_F(UselessConversations, HaveTargetsInAStream) {
  EXPECT_EQ(load_files(cut() + cut(), "", ConversationPacking::kStream).training->size(), 1U);
  const std::string nothing = R"({"weight":0,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]})"
                              "\n";
  const std::string marked =
      R"({"messages":[{"role":"user","content":"q","train":false},{"role":"assistant","content":"a","train":false}]})"
      "\n";
  for (const std::string& row : {nothing, marked}) {
    EXPECT_THAT([&] { load_files(row, "", ConversationPacking::kStream); },
                ThrowsMessage<DataError>(HasSubstr("nothing can be learned")));
  }
}

TEST_F(HeldOutConversations, OneConversationIsNotEnoughHoweverOftenItComes) {
  EXPECT_THAT([this] { load(R"(, "stop": 1, "repeats": 5)"); }, ThrowsMessage<DataError>(HasSubstr("one conversation cannot")));
}

}  // namespace
}  // namespace nanochat
