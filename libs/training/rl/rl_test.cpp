#include "training/rl/rl.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/safetensors.h"
#include "core/errors.h"
#include "core/progress.h"
#include "training/finetune/testing_base.h"
#include "training/sft/sft.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class Rl : public testing::StageTest<RlConfig> {
 protected:
  Rl() {
    config_.base_model = testing::save_base_model(folder_.path(), tokenizer_.get(), "sft").string();
    config_.mixture = R"([{"task": "toy-spelling"}])";
    config_.validation_mixture = R"([{"task": "toy-spelling", "split": "test"}])";
    config_.num_iterations = 6;
    config_.examples_per_step = 2;
    config_.num_samples = 3;
    config_.max_new_tokens = 6;
    config_.eval_examples = 4;
    config_.eval_samples = 2;
    config_.eval_interval = 3;
    config_.checkpoint_interval = 2;
  }
  TrainingResult train() {
    SilentProgress progress;
    return rl(config_, progress);
  }
};

TEST_F(Rl, LeavesARunWithRewardsAndPassRates) {
  const TrainingResult result = train();
  EXPECT_EQ(result.steps, 6);
  EXPECT_EQ(result.score, 1.0) << "a model that was never trained passes nothing";
  int steps = 0, validations = 0;
  for (const auto& row : metrics()) {
    if (row.contains("reward")) ++steps;
    if (row.contains("pass@2")) ++validations;
    EXPECT_LE(row.value("answer_tokens", 0.0), 6.0);
  }
  EXPECT_EQ(steps, 6);
  EXPECT_EQ(validations, 3);
  const LoadedModel loaded = load_model(config_.output_dir, at::kFloat);
  EXPECT_EQ(loaded.training_state.at("stage"), "rl");
  EXPECT_EQ(loaded.training_state.at("loader").at("question"), 12);
}

class RlOfBoth : public Rl, public ::testing::WithParamInterface<Architecture> {
 protected:
  bool newest() const { return GetParam() == Architecture::kNanochat2026_07; }
  void SetUp() override {
    if (newest()) config_.base_model = testing::save_newest_base_model(folder_.path(), *tokenizer_, "sft").string();
  }
};
INSTANTIATE_TEST_SUITE_P(Architectures, RlOfBoth,
                         ::testing::Values(Architecture::kNanochat2025_12, Architecture::kNanochat2026_07),
                         [](const auto& tested) {
                           return tested.param == Architecture::kNanochat2026_07 ? "nanochat_2026_07" : "nanochat_2025_12";
                         });

TEST_P(RlOfBoth, UsesTheOptimizerOfTheArchitecture) {
  config_.num_iterations = 1;
  train();
  const SafetensorsFile state(config_.output_dir / "checkpoints/step-000001/optimizer.rank-0-of-1.safetensors");
  EXPECT_EQ(state.entries().contains("model.layers.0.mlp.fc1.weight.second_momentum_buffer"), newest());
  EXPECT_TRUE(state.entries().contains("model.layers.0.mlp.fc1.weight.momentum_buffer"));
}

// A task that one of a few answers solves: the model was taught to say 1, 2 or 3 to anything, and is rewarded for 2.
TEST_P(RlOfBoth, WhatIsRewardedBecomesLikelier) {
  std::string chat, questions;
  for (int i = 0; i < 20; ++i)
    questions += R"({"question": "say", "answer": "#### 2"})"
                 "\n";
  testing::write_text(folder_ / "questions.jsonl", questions);
  for (int i = 0; i < 150; ++i) {
    chat += fmt::format(R"({{"messages":[{{"role":"user","content":"say"}},{{"role":"assistant","content":"#### {}"}}]}})",
                        i % 3 + 1) +
            "\n";
  }
  testing::write_text(folder_ / "say.jsonl", chat);
  SftConfig taught;
  taught.base_model = config_.base_model;
  taught.data.data_dir = {(folder_ / "say.jsonl").string()};
  taught.output_dir = folder_ / "taught";
  taught.runtime = config_.runtime;
  taught.num_iterations = 60;
  taught.init_lr_frac = 0.5;
  taught.eval_interval = -1;
  taught.workers = 1;
  SilentProgress progress;
  sft(taught, progress);
  config_.base_model = taught.output_dir.string();
  config_.mixture = fmt::format(R"([{{"task": "gsm8k", "path": "{}"}}])", (folder_ / "questions.jsonl").string());
  config_.validation_mixture = config_.mixture;
  config_.num_iterations = 30;
  config_.examples_per_step = 2;
  config_.num_samples = 8;
  config_.max_new_tokens = 8;
  config_.eval_examples = 20;
  config_.eval_interval = -1;
  config_.init_lr_frac = 0.2;
  const TrainingResult result = train();
  const auto rewards = figures("reward");
  // One answer in three is right at first.
  EXPECT_LT((rewards[0] + rewards[1] + rewards[2]) / 3.0, 0.55);
  EXPECT_GT(1.0 - result.score, 0.7) << "pass@1 after learning";
}

TEST_P(RlOfBoth, AResumedRunEqualsAnUninterruptedOneBitForBit) {
  train();
  const LoadedModel whole = load_model(config_.output_dir, at::kFloat);
  fs::remove_all(config_.output_dir / "checkpoints/step-000006");
  fs::remove_all(config_.output_dir / "checkpoints/step-000004");
  fs::remove(config_.output_dir / "checkpoints/latest");
  config_.resume = "latest";
  EXPECT_EQ(train().steps, 6);
  const LoadedModel resumed = load_model(config_.output_dir, at::kFloat);
  testing::expect_same_weights(*whole.model, *resumed.model);
}

TEST_F(Rl, NoEpochIsNoStep) {
  config_.num_iterations = -1;
  config_.num_epochs = 0;
  EXPECT_EQ(train().steps, 0);
}

TEST_F(Rl, SaysWhatDoesNotFit) {
  const auto failing = [this](auto change) {
    RlConfig broken = config_;
    change(broken);
    return [broken] {
      SilentProgress progress;
      rl(broken, progress);
    };
  };
  EXPECT_THAT(failing([](auto& c) { c.mixture.clear(); }), ThrowsMessage<ConfigError>(HasSubstr("--mixture")));
  EXPECT_THAT(failing([](auto& c) { c.output_dir.clear(); }), ThrowsMessage<ConfigError>(HasSubstr("--output-dir")));
  const fs::path chat = testing::write_conversations(folder_.path(), 3);
  EXPECT_THAT(failing([&](auto& c) {
                c.mixture = fmt::format(R"([{{"task": "conversations", "path": "{}"}}])", chat.string());
              }),
              ThrowsMessage<ConfigError>(HasSubstr("none would earn a reward")));
  EXPECT_THAT(failing([&](auto& c) { c.mixture = "[nonsense"; }), ThrowsMessage<ConfigError>(HasSubstr("not JSON")));
  EXPECT_THAT(failing([&](auto& c) { c.base_model = testing::save_base_model(folder_.path(), tokenizer_.get()).string(); }),
              ThrowsMessage<ConfigError>(HasSubstr("never seen a conversation")));
}

}  // namespace
}  // namespace nanochat
