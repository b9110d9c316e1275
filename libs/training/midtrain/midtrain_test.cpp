#include "training/midtrain/midtrain.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/progress.h"
#include "training/finetune/testing_base.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

class Midtrain : public testing::StageTest<MidtrainConfig> {
 protected:
  Midtrain() {
    config_.base_model = testing::save_base_model(folder_.path(), tokenizer_.get()).string();
    config_.data.data_dir = {testing::write_conversations(folder_.path(), 300).string()};
    config_.num_iterations = 10;
    config_.eval_interval = 5;
    config_.checkpoint_interval = 4;
  }
  TrainingResult train() {
    SilentProgress progress;
    return midtrain(config_, progress);
  }
};

TEST_F(Midtrain, LearnsEveryTokenAtTheReferencesRates) {
  const TrainingResult result = train();
  EXPECT_EQ(result.steps, 10);
  const auto losses = figures("loss"), validation = figures("validation_bpb"), rates = figures("lr_multiplier");
  EXPECT_NEAR(losses.front(), std::log(265.0), 1e-3);
  EXPECT_LT(losses.back(), 0.9 * losses.front());
  EXPECT_LT(validation.back(), validation.front());
  EXPECT_DOUBLE_EQ(result.score, validation.back());
  // Constant, then down to zero over the last fifth.
  EXPECT_EQ(rates, (std::vector<double>{1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5}));
  // The batch sizes of the base model: 512 tokens, of which all are targets.
  EXPECT_EQ(figures("supervised_tokens").front(), 512.0);
}

TEST_F(Midtrain, TheHorizonIsTheData) {
  config_.num_iterations = -1;
  config_.eval_interval = -1;
  // 285 conversations of 21 tokens, some of 22: 93 whole rows of 64, 8 a step.
  EXPECT_EQ(train().steps, 11);
  config_.num_epochs = 2.0;
  config_.output_dir = folder_ / "twice";
  EXPECT_EQ(train().steps, 23);
}

TEST_F(Midtrain, AResumedRunEqualsAnUninterruptedOneBitForBit) {
  train();
  const LoadedModel whole = load_model(config_.output_dir, at::kFloat);
  fs::remove_all(config_.output_dir / "checkpoints/step-000010");
  fs::remove_all(config_.output_dir / "checkpoints/step-000008");
  fs::remove(config_.output_dir / "checkpoints/latest");
  config_.resume = "latest";
  EXPECT_EQ(train().steps, 10);
  const LoadedModel resumed = load_model(config_.output_dir, at::kFloat);
  testing::expect_same_weights(*whole.model, *resumed.model);
  EXPECT_EQ(whole.training_state.at("loader"), resumed.training_state.at("loader"));
}

TEST_F(Midtrain, MessagesOfWeightZeroAreNoTargetsAndNothingToLearnIsAnError) {
  const auto conversations = [this](const std::string& weight, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      text += R"({"messages":[{"role":"user","content":"abcdefg")" + weight + R"(},{"role":"assistant","content":"hijklmn")" +
              weight +
              R"(}]})"
              "\n";
    }
    testing::write_text(folder_ / "chat.jsonl", text);
  };
  config_.data.data_dir = {(folder_ / "chat.jsonl").string()};
  config_.data.validation_share = 0.0;
  config_.num_iterations = 1;
  conversations("", 300);
  EXPECT_TRUE(std::isnan(train().score));
  EXPECT_EQ(figures("supervised_tokens").front(), 512.0);
  EXPECT_TRUE(figures("validation_bpb").empty());
  testing::write_text(
      folder_ / "weighted.jsonl",
      R"({"messages":[{"role":"user","content":"abcdefg"},{"role":"assistant","content":"hijklmn","weight":0}]})"
      "\n");
  config_.data.mixture = R"([{"task": "conversations", "path": ")" + (folder_ / "weighted.jsonl").string() +
                         R"(", "repeats": 300}])";
  config_.data.data_dir.clear();
  config_.output_dir = folder_ / "weighted";
  train();
  // Of the 19 tokens of each, 9 are of the message.
  EXPECT_NEAR(figures("supervised_tokens").front(), 512.0 * 10 / 19, 5);

  config_.data.mixture.clear();
  config_.data.data_dir = {(folder_ / "chat.jsonl").string()};
  config_.output_dir = folder_ / "nothing";
  conversations(R"(,"train":false)", 3);
  EXPECT_THAT([this] { train(); },
              ::testing::ThrowsMessage<DataError>(::testing::HasSubstr("nothing can be learned from any of the 3")));
}

TEST_F(Midtrain, NoEpochIsNoStepAndNoShareIsNoValidation) {
  config_.num_iterations = -1;
  config_.num_epochs = 0;
  config_.data.validation_share = 0;
  const TrainingResult result = train();
  EXPECT_EQ(result.steps, 0);
  EXPECT_TRUE(std::isnan(result.score));
}

TEST_F(Midtrain, AResumedRunMayHaveOtherMicroBatches) {
  train();
  forget_after(4);
  config_.resume = "latest";
  config_.device_batch_size = 8;
  EXPECT_EQ(train().steps, 10);
  EXPECT_EQ(figures("supervised_tokens"), std::vector<double>(10, 512.0)) << "the step is the same";
  config_.device_batch_size = 3;  // three micro-batches of three rows of 64
  EXPECT_THAT([this] { train(); }, ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr("tokens_per_step: 512 → 576")));
}

TEST_F(Midtrain, AFewConversationsAreEnoughToBeJudgedBy) {
  config_.data.data_dir = {testing::write_conversations(folder_.path(), 2).string()};
  config_.num_iterations = 2;
  EXPECT_TRUE(std::isfinite(train().score));
}

}  // namespace
}  // namespace nanochat
