#include "training/pretrain/pretrain_plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"
#include "training/pretrain/training_data.h"

namespace nanochat {

PretrainPlan plan_pretraining(PretrainConfig config, std::int64_t vocab_size, bool gpu, Cluster cluster) {
  cluster.gradient_bytes = config.grad_comm_dtype == "bfloat16" ? 2 : 4;
  PretrainPlan plan;
  plan.model = config.model_config(vocab_size);
  const Horizon horizon = config.horizon(plan.model);
  if (config.total_batch_size < 0) config.total_batch_size = config.scaling(plan.model).total_batch_size;
  check_batch_sizes(config, cluster.ranks);
  plan.total_batch_size = config.total_batch_size;
  plan.grad_accum_steps = config.total_batch_size / (config.device_batch_size * config.sequence_len * cluster.ranks);
  plan.shape = {.device_batch_size = config.device_batch_size,
                .sequence_len = config.sequence_len,
                .compute_bytes = config.runtime.dtype == "float32" ? 4 : 2,
                .gpu = gpu,
                .recompute = config.recompute,
                .fp8 = config.fp8,
                .shard_weights = config.shard == "full"};
  const auto tokens = static_cast<double>(config.total_batch_size);
  const double step_seconds = plan_training(plan.model, plan.shape, cluster, 1, tokens).seconds;
  plan.steps = horizon.steps;
  if (step_seconds > 0.0) plan.steps = std::max<std::int64_t>(plan.steps, std::llround(horizon.seconds / step_seconds));
  plan.training = plan_training(plan.model, plan.shape, cluster, plan.steps, tokens);
  return plan;
}

std::optional<std::int64_t> planned_vocab_size(const PretrainConfig& config) {
  if (!config.tokenizer.empty()) return load_tokenizer(config.tokenizer, {.bos_token = config.bos_token})->vocab_size();
  if (config.data_dir.empty()) return std::nullopt;
  return TrainingData(config).tokenizer()->vocab_size();
}

}  // namespace nanochat
