#include "optim/rank_plan.h"

#include <algorithm>
#include <vector>

#include "model/layout.h"
#include "optim/ownership.h"

namespace nanochat {
namespace {

std::vector<TensorSpec> tensors_of(const GptConfig& config) {
  std::vector<TensorSpec> tensors;
  for_each_tensor(config, [&](const TensorSpec& tensor) { tensors.push_back(tensor); });
  return tensors;
}

// Of the rank that has the most.
std::int64_t largest_optimizer_state(const GptConfig& config, int ranks) {
  const std::vector<TensorSpec> tensors = tensors_of(config);
  const std::vector<std::vector<OwnedRows>> divided = divide_tensors(tensors, ranks);
  std::vector<std::int64_t> bytes(static_cast<std::size_t>(ranks));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t row = tensors[i].numel() / tensors[i].shape[0];
    for (const OwnedRows& rows : divided[i]) {
      bytes[static_cast<std::size_t>(rows.owner)] += (rows.end - rows.first) * row * state_bytes_per_element(tensors[i]);
    }
  }
  return *std::max_element(bytes.begin(), bytes.end());
}

}  // namespace

double Cluster::ring_bytes_per_second() const {
  return nodes() > 1 ? std::min(link_bytes_per_second, network_bytes_per_second) : link_bytes_per_second;
}

MemoryEstimate estimate_rank_memory(const GptConfig& config, const TrainingShape& shape, int ranks) {
  MemoryEstimate estimate = estimate_training_memory(config, shape);
  if (ranks > 1) estimate.optimizer = largest_optimizer_state(config, ranks);
  return estimate;
}

StepTraffic step_traffic(const GptConfig& config, int ranks, int compute_bytes, int gradient_bytes) {
  if (ranks == 1) return {};
  StepTraffic traffic{.calls = static_cast<int>(config.n_layer) + 2};
  for_each_tensor(config, [&](const TensorSpec& tensor) {
    const auto share = [&](std::int64_t bytes) { return tensor.numel() * bytes * (ranks - 1) / ranks; };
    traffic.gradients += share(gradient_bytes);
    if (tensor.layer == kBeforeLayers) traffic.last_gradients += share(gradient_bytes);
    const std::int64_t weights = share(computes_in_float32(tensor) ? 4 : compute_bytes);
    traffic.weights += weights;
    if (tensor.layer == kBeforeLayers) traffic.first_weights += weights;
  });
  return traffic;
}

double recompute_flops_per_token(const GptConfig& config) {
  double flops = 0.0;
  for_each_tensor(config, [&](const TensorSpec& tensor) {
    const bool again = tensor.layer >= 0 && tensor.layer + 1 < config.n_layer && tensor.slot != WeightSlot::kMlpOut;
    if (again && (tensor.role == TensorRole::kMatrix || tensor.role == TensorRole::kGate)) {
      flops += 2.0 * static_cast<double>(tensor.numel());
    }
  });
  for (std::int64_t layer = 0; layer + 1 < config.n_layer; ++layer) {
    const std::int64_t attended = std::min(plan_layer(config, layer).window.value_or(config.sequence_len), config.sequence_len);
    flops += 4.0 * static_cast<double>(attended * config.n_embd);
  }
  return flops;
}

StepTime estimate_step_time(const GptConfig& config, const TrainingShape& shape, const Cluster& cluster, double tokens) {
  constexpr double kForward = 1.0 / 3.0, kBackward = 2.0 / 3.0;  // of the operations of a pass
  const StepTraffic traffic = step_traffic(config, cluster.ranks, shape.compute_bytes, cluster.gradient_bytes);
  const double again = shape.recompute ? recompute_flops_per_token(config) : 0.0;
  const double micro_batch = std::min(tokens, static_cast<double>(shape.device_batch_size * shape.sequence_len));
  const auto computing = [&](double flops) { return cluster.flops_per_second > 0 ? flops / cluster.flops_per_second : 0.0; };
  const double hops = traffic.calls * (cluster.ranks - 1) * cluster.hop_seconds;
  const auto sending = [&](std::int64_t bytes) { return static_cast<double>(bytes) / cluster.ring_bytes_per_second(); };

  StepTime time;
  time.compute = computing(tokens * (config.flops_per_token() + again));
  time.gradients = sending(traffic.gradients) + hops;
  time.weights = sending(traffic.weights) + hops;
  const auto exposed = [&](double communication, double flops_per_token, std::int64_t exposed_bytes) {
    return std::max(communication - computing(micro_batch * flops_per_token), sending(exposed_bytes));
  };
  time.exposed_gradients = exposed(time.gradients, kBackward * config.flops_per_token() + again, traffic.last_gradients);
  time.exposed_weights = exposed(time.weights, kForward * config.flops_per_token(), traffic.first_weights);
  return time;
}

}  // namespace nanochat
