#include "training/pretrain/scaling_laws.h"

#include <cmath>

#include "model/layout.h"

namespace nanochat {

std::int64_t scaling_parameters(const GptConfig& model) {
  std::int64_t count = 0;
  for_each_tensor(model, [&](const TensorSpec& tensor) {
    const bool counts = tensor.group == OptimizerGroup::kMatrix || tensor.group == OptimizerGroup::kHead;
    if (counts) count += tensor.numel();
  });
  return count;
}

ScalingPlan plan_scaling(const GptConfig& model, const GptConfig& depth_12, const ScalingOptions& options) {
  constexpr double kBatchOfDepth12 = 524288.0, kBatchExponent = 0.383;
  ScalingPlan plan;
  const double ratio = options.target_param_data_ratio;
  plan.target_tokens = static_cast<std::int64_t>(ratio * static_cast<double>(scaling_parameters(model)));
  const double of_depth_12 = ratio * static_cast<double>(scaling_parameters(depth_12));
  const auto tokens = static_cast<double>(plan.target_tokens);
  plan.total_batch_size = options.total_batch_size;
  if (plan.total_batch_size < 0) {
    // To the next power of two; nearbyint rounds halves to even, as Python's round() does.
    const double wanted = kBatchOfDepth12 * std::pow(tokens / of_depth_12, kBatchExponent);
    plan.total_batch_size = std::int64_t{1} << static_cast<int>(std::nearbyint(std::log2(wanted)));
  }
  const auto batch = static_cast<double>(plan.total_batch_size);
  plan.lr_scale = std::sqrt(batch / kBatchOfDepth12);
  plan.weight_decay = options.weight_decay * plan.lr_scale * of_depth_12 / tokens;
  if (options.num_iterations >= 0) {
    plan.num_iterations = options.num_iterations;
  } else if (options.target_flops > 0.0) {
    plan.num_iterations = static_cast<std::int64_t>(std::nearbyint(options.target_flops / (model.flops_per_token() * batch)));
  } else {
    plan.num_iterations = plan.target_tokens / plan.total_batch_size;
  }
  return plan;
}

}  // namespace nanochat
