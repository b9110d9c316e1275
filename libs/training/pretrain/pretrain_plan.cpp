#include "training/pretrain/pretrain_plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"
#include "training/pretrain/training_data.h"
#include "training/trainer/memory_check.h"

namespace nanochat {

PretrainPlan plan_pretraining(PretrainConfig config, std::int64_t vocab_size, bool gpu, Cluster cluster) {
  cluster.gradient_bytes = config.grad_comm_dtype == "bfloat16" ? 2 : 4;
  PretrainPlan plan;
  plan.model = config.model_config(vocab_size);
  const Horizon horizon = config.horizon(plan.model);
  if (config.total_batch_size < 0) config.total_batch_size = config.scaling(plan.model).total_batch_size;
  check_batch_sizes(config, cluster.ranks);
  plan.total_batch_size = config.total_batch_size;
  const std::int64_t rows = rows_of_process(config, cluster.ranks);
  plan.shape = training_shape(config, plan.model, config.device_batch_size, config.runtime.dtype == "float32" ? 4 : 2, gpu);
  if (config.device_batch_size == kAutoDeviceBatch)
    plan.shape.device_batch_size = plan_device_batch(config.runtime, plan.model, plan.shape, cluster.ranks, rows);
  plan.grad_accum_steps = rows / plan.shape.device_batch_size;
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
