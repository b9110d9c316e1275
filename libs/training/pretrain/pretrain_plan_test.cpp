#include "training/pretrain/pretrain_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/options.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr std::int64_t kVocabulary = 65536;

PretrainConfig speedrun() {
  PretrainConfig config;
  OptionList options;
  declare_pretrain_options(options, config);
  config.recipe = "nanochat-2025-12";
  apply_recipe(options, config);
  config.depth = 20;
  config.device_batch_size = 32;
  return config;
}

TEST(PretrainPlan, DividesAStepAmongProcesses) {
  const Cluster one{.flops_per_second = 5.7e14};
  Cluster eight = one;
  eight.ranks = 8;
  const PretrainPlan alone = plan_pretraining(speedrun(), kVocabulary, true, one),
                     many = plan_pretraining(speedrun(), kVocabulary, true, eight);
  EXPECT_EQ(alone.steps, 21'400);
  EXPECT_EQ(many.steps, alone.steps);
  EXPECT_EQ(alone.grad_accum_steps, 8);
  EXPECT_EQ(many.grad_accum_steps, 1);
  EXPECT_EQ(alone.training.traffic.total(), 0);
  EXPECT_EQ(alone.training.efficiency, 1.0);
  EXPECT_EQ(many.training.traffic.total(), step_traffic(many.model, 8, 2).total());
  EXPECT_LT(many.training.memory.total(), alone.training.memory.total());
  EXPECT_GT(many.training.seconds, alone.training.seconds / 8) << "communication takes time";
  EXPECT_NEAR(many.training.seconds * many.training.efficiency, alone.training.seconds / 8, 1e-6 * alone.training.seconds);
  // The processes of one machine share its memory: eight have the copies of eight.
  EXPECT_EQ(many.training.host_memory, 4 * many.model.parameter_count() + 8 * many.training.memory.optimizer);
  EXPECT_EQ(plan_pretraining(speedrun(), kVocabulary, false, eight).training.host_memory,
            8 * plan_pretraining(speedrun(), kVocabulary, false, eight).training.memory.total());
  eight.ranks = 3;
  EXPECT_THAT([&] { plan_pretraining(speedrun(), kVocabulary, true, eight); },
              ThrowsMessage<ConfigError>(HasSubstr("x 3 processes")));
}

TEST(PretrainPlan, KnowsPrecisionAndRecomputation) {
  PretrainConfig config = speedrun();
  const Cluster cluster{.ranks = 2, .flops_per_second = 5.7e14};
  const PretrainPlan narrow = plan_pretraining(config, kVocabulary, true, cluster);
  config.recompute = true;
  const PretrainPlan recomputed = plan_pretraining(config, kVocabulary, true, cluster);
  EXPECT_LT(recomputed.training.memory.activations, narrow.training.memory.activations / 2);
  EXPECT_NEAR(recomputed.training.step.compute / narrow.training.step.compute, 1.2, 0.05);
  config.runtime.dtype = "float32";
  EXPECT_EQ(plan_pretraining(config, kVocabulary, true, cluster).shape.compute_bytes, 4);
}

TEST(PretrainPlan, ChoosesRowsForALimit) {
  PretrainConfig config = speedrun();
  config.device_batch_size = kAutoDeviceBatch;
  config.runtime.memory_limit = 40;
  const PretrainPlan plan = plan_pretraining(config, kVocabulary, true, {});
  EXPECT_EQ(256 % plan.shape.device_batch_size, 0);
  EXPECT_EQ(plan.grad_accum_steps * plan.shape.device_batch_size, 256);
  EXPECT_LE(plan.training.memory.total(), 40'000'000'000);
  config.device_batch_size = 2 * plan.shape.device_batch_size;
  EXPECT_GT(plan_pretraining(config, kVocabulary, true, {}).training.memory.total(), 40'000'000'000);
}

TEST(PretrainPlan, OfAHorizonInMinutes) {
  PretrainConfig config = speedrun();
  config.target_minutes = 60;
  const PretrainPlan plan = plan_pretraining(config, kVocabulary, true, {.ranks = 8, .flops_per_second = 5.7e14});
  EXPECT_NEAR(plan.training.seconds, 3600, plan.training.step.total());
}

TEST(PretrainPlan, NeedsTheMarkForItsOptions) {
  ClusterOptions config;
  OptionList options;
  declare_cluster_options(options, config);
  require_plan(options, false);
  options.find("world_size")->set_text({"16"}, "--world-size", "flag");
  EXPECT_THAT([&] { require_plan(options, false); }, ThrowsMessage<ConfigError>(HasSubstr("--world-size belongs to --plan")));
  require_plan(options, true);
  EXPECT_EQ(config.cluster().ranks, 16);
  EXPECT_EQ(config.cluster().nodes(), 2);
  EXPECT_EQ(config.cluster().ring_bytes_per_second(), 50e9);
}

}  // namespace
}  // namespace nanochat
