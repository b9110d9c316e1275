#include "training/trainer/memory_check.h"

#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"
#include "optim/rank_plan.h"
#include "runtime/memory_limits.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

GptConfig model_of(std::int64_t depth) { return GptConfig::from_depth(depth, 1000, 256); }

std::int64_t bytes_of(const GptConfig& model, std::int64_t rows, bool recompute = false) {
  TrainerOptions options;
  options.recompute = recompute;
  return estimate_rank_memory(model, training_shape(options, model, rows, 4, false), 1).total();
}

// On a CPU, whose memory has a limit while the test runs.
class MemoryCheck : public ::testing::Test {
 protected:
  ~MemoryCheck() override { limit_memory(at::kCPU, 0); }
  std::int64_t choose(std::int64_t limit, std::int64_t rows = 0) {
    limit_memory(at::kCPU, limit);
    return choose_device_batch(options_, model_, runtime_, alone(), rows);
  }
  const GptConfig model_ = model_of(2);
  TrainerOptions options_;
  Runtime runtime_{.device = at::kCPU, .dtype = at::kFloat, .threads = 1, .description = ""};
};

TEST(MicroBatch, DividesAStepOrIsAPowerOfTwo) {
  EXPECT_EQ(largest_micro_batch(64, 48), 48);
  EXPECT_EQ(largest_micro_batch(47, 48), 24);
  EXPECT_EQ(largest_micro_batch(23, 48), 16);
  EXPECT_EQ(largest_micro_batch(7, 13), 1);
  EXPECT_EQ(largest_micro_batch(23, 0), 16);
  EXPECT_EQ(largest_micro_batch(32, 0), 32);
  EXPECT_EQ(largest_micro_batch(0, 48), 1);
  EXPECT_EQ(largest_micro_batch(0, 0), 1);
}

TEST_F(MemoryCheck, ChoosesTheLargestThatFits) {
  const std::int64_t limit = bytes_of(model_, 8);
  EXPECT_EQ(choose(limit), 8);
  EXPECT_EQ(choose(limit - 1), 4) << "7 rows fit";
  EXPECT_EQ(choose(limit, 24), 8);
  EXPECT_EQ(choose(limit - 1, 28), 7);
  EXPECT_EQ(choose(limit, 6), 6) << "no more rows than a step has";
  options_.recompute = true;
  EXPECT_EQ(choose(limit, 840), 10);
  EXPECT_EQ(choose(bytes_of(model_, 8, true)), 8);
}

TEST_F(MemoryCheck, WhatIsChosenPassesTheCheckAndWhatDoesNotFitIsRefused) {
  const std::int64_t limit = bytes_of(model_, 1);
  EXPECT_EQ(choose(limit), 1);
  EXPECT_NO_THROW(save_in_background(options_, model_, runtime_, 1));
  EXPECT_EQ(choose(limit - 1), 1);
  EXPECT_THAT([&] { save_in_background(options_, model_, runtime_, 1); },
              ThrowsMessage<ConfigError>(HasSubstr("--device-batch-size 1 with --recompute")));
}

TEST_F(MemoryCheck, AResumedRunKeepsItsRowsWhileTheyFit) {
  const testing::TemporaryDirectory folder;
  options_.output_dir = folder.path();
  testing::write_text(folder / "config.json", R"({"device_batch_size": 3})");
  const std::int64_t limit = bytes_of(model_, 8);
  EXPECT_EQ(choose(limit), 8) << "a new run";
  options_.resume = "latest";
  EXPECT_EQ(choose(limit), 3);
  EXPECT_EQ(choose(limit, 24), 3);
  EXPECT_EQ(choose(limit, 16), 8) << "which 3 do not divide";
  EXPECT_EQ(choose(bytes_of(model_, 2), 24), 2) << "3 do not fit";
  testing::write_text(folder / "config.json", R"({"depth": 2})");
  EXPECT_EQ(choose(limit), 8);
}

TEST_F(MemoryCheck, PlansForTheLimit) {
  const TrainingShape cpu = training_shape(options_, model_, kAutoDeviceBatch, 4, false),
                      gpu = training_shape(options_, model_, kAutoDeviceBatch, 2, true);
  RuntimeOptions runtime;
  const auto limit_for = [&](const TrainingShape& shape, std::int64_t rows) {
    TrainingShape some = shape;
    some.device_batch_size = rows;
    return static_cast<double>(estimate_rank_memory(model_, some, 1).total() + 1) / 1e9;
  };
  runtime.memory_limit = limit_for(cpu, 12);
  EXPECT_EQ(plan_device_batch(runtime, model_, cpu, 1), 8);
  EXPECT_EQ(plan_device_batch(runtime, model_, cpu, 1, 24), 12);
  runtime.memory_limit = limit_for(gpu, 12);
  EXPECT_EQ(plan_device_batch(runtime, model_, gpu, 1, 24), 12);
  const GptConfig large = model_of(8);
  runtime.memory_limit = 4.0;
  EXPECT_GT(plan_device_batch(runtime, large, gpu, 8, 5040), plan_device_batch(runtime, large, gpu, 1, 5040))
      << "the optimizer's state is divided";
  runtime.memory_limit = 0.01;
  EXPECT_THAT([&] { plan_device_batch(runtime, model_, gpu, 1); }, ThrowsMessage<ConfigError>(HasSubstr("one row takes")));
}

}  // namespace
}  // namespace nanochat
