#pragma once
// What a pretraining will take, before it begins: `nanochat pretrain --plan`, and the step of a chain.

#include <cstdint>
#include <optional>

#include "training/pretrain/pretrain_options.h"
#include "training/trainer/training_plan.h"

namespace nanochat {

struct PretrainPlan {
  GptConfig model;
  TrainingShape shape;
  std::int64_t steps = 0, total_batch_size = 0;
  std::int64_t grad_accum_steps = 0;  // of each process
  TrainingPlan training;
};

// In float32 if --dtype says so, else in bfloat16. Throws ConfigError for options that do not fit together.
PretrainPlan plan_pretraining(PretrainConfig config, std::int64_t vocab_size, bool gpu, Cluster cluster);

// Of the tokenizer that --tokenizer or --data-dir name; nullopt if neither is given.
std::optional<std::int64_t> planned_vocab_size(const PretrainConfig& config);

}  // namespace nanochat
