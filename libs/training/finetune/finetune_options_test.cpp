#include "training/finetune/finetune_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/options.h"
#include "training/finetune/conversation_training.h"
#include "training/finetune/testing_base.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
namespace fs = std::filesystem;

class BaseModels : public ::testing::Test {
 protected:
  static auto opening(const fs::path& base, const char* stage) {
    FinetuneConfig config;
    config.base_model = base.string();
    return [config, stage] { return open_base_model(config, stage); };
  }
  testing::TemporaryDirectory folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = testing::byte_tokenizer(folder_.path());
};

TEST_F(BaseModels, AreInheritedFrom) {
  const fs::path folder = testing::save_base_model(folder_.path(), tokenizer_.get());
  const BaseModel base = opening(folder, "sft")();
  EXPECT_EQ(base.stage, "pretrain");
  EXPECT_EQ(base.inherit("device_batch_size", 9), 4);
  EXPECT_EQ(base.inherit("depth", 9), 9);
  Gpt model(base.stored.config, at::kFloat);
  read_weights(base.stored, model);
  testing::expect_same_weights(model, *load_model(folder, at::kFloat).model);
}

TEST_F(BaseModels, GiveTheirLearningRatesAndTheStepsOfTheirOptimizer) {
  TrainerOptions options;
  options.embedding_lr = options.unembedding_lr = kInherited;
  options.matrix_lr = 0.5;
  const BaseModel newest = opening(testing::save_newest_base_model(folder_.path(), *tokenizer_), "sft")();
  EXPECT_EQ(newest.with_rates(options).embedding_lr, 0.3);
  EXPECT_EQ(newest.with_rates(options).unembedding_lr, 0.008);
  EXPECT_EQ(newest.with_rates(options).matrix_lr, 0.5) << "given";
  EXPECT_EQ(newest.optimizer_steps(), 7);
  const BaseModel imported = opening(testing::save_base_model(folder_.path(), tokenizer_.get(), ""), "sft")();
  EXPECT_EQ(imported.with_rates(options).unembedding_lr, 0.004) << "the reference's, where none is known";
  EXPECT_EQ(imported.optimizer_steps(), 0);
}

TEST_F(BaseModels, OfTheSameOrAnEarlierStageAreTaken) {
  for (const char* stage : {"pretrain", "midtrain", "sft"}) {
    EXPECT_EQ(opening(testing::save_base_model(folder_.path(), tokenizer_.get(), stage), "sft")().stage, stage);
  }
  const BaseModel imported = opening(testing::save_base_model(folder_.path(), tokenizer_.get(), ""), "rl")();
  EXPECT_EQ(imported.stage, "");
  EXPECT_EQ(imported.inherit("device_batch_size", 9), 9);
}

TEST_F(BaseModels, ThatDoNotFitAreRefusedWithTheReason) {
  EXPECT_THAT(opening(testing::save_base_model(folder_.path(), tokenizer_.get(), "rl"), "midtrain"),
              ThrowsMessage<ConfigError>(
                  HasSubstr("comes from rl, which midtrain would undo; begin from a checkpoint of pretrain, midtrain")));
  EXPECT_THAT(opening(testing::save_base_model(folder_.path(), tokenizer_.get(), "pretrain"), "rl"),
              ThrowsMessage<ConfigError>(HasSubstr("never seen a conversation")));
  EXPECT_THAT(opening(testing::save_base_model(folder_.path(), nullptr), "sft"),
              ThrowsMessage<CheckpointError>(HasSubstr("no tokenizer")));
  EXPECT_THAT(opening("", "sft"), ThrowsMessage<ConfigError>(HasSubstr("--base-model is missing")));
  EXPECT_THROW(opening("/nowhere", "sft")(), CheckpointError);
}

TEST(FinetuneConfig, ScalesEveryLearningRate) {
  FinetuneConfig config;
  config.init_lr_frac = 0.5;
  const OptimizerOptions options = config.optimizer_options(Runtime{}, GptConfig{});
  EXPECT_DOUBLE_EQ(options.embedding_lr, 0.1);
  EXPECT_DOUBLE_EQ(options.unembedding_lr, 0.002);
  EXPECT_DOUBLE_EQ(options.matrix_lr, 0.01);
}

TEST(FinetuneConfig, ATrialEndsEarly) {
  FinetuneConfig config;
  EXPECT_EQ(steps_to_take(config, 10), 10);
  config.max_steps = 3;
  EXPECT_EQ(steps_to_take(config, 10), 3);
  EXPECT_EQ(steps_to_take(config, 2), 2);
}

TEST(StepShape, HasEqualMicroBatchesWithinTheDevicesSize) {
  const auto shape = [](std::int64_t rows, std::int64_t largest) {
    const StepShape found = step_shape(rows, largest);
    return std::pair(found.grad_accum_steps, found.device_batch_size);
  };
  EXPECT_EQ(shape(8, 8), std::pair(std::int64_t{1}, std::int64_t{8}));
  EXPECT_EQ(shape(3, 8), std::pair(std::int64_t{1}, std::int64_t{3}));
  EXPECT_EQ(shape(9, 8), std::pair(std::int64_t{2}, std::int64_t{5}));
  EXPECT_EQ(shape(64, 8), std::pair(std::int64_t{8}, std::int64_t{8}));
}

}  // namespace
}  // namespace nanochat
