#include "optim/rank_plan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
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

using BytesPerElement = std::function<std::int64_t(const TensorSpec&)>;

// Of what is divided among the ranks as the optimizer's state is: that of the rank that has the most.
std::int64_t largest_share(const GptConfig& config, int ranks, const BytesPerElement& bytes_per_element) {
  const std::vector<TensorSpec> tensors = tensors_of(config);
  const std::vector<std::vector<OwnedRows>> divided = divide_tensors(tensors, ranks);
  std::vector<std::int64_t> bytes(static_cast<std::size_t>(ranks));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t row = tensors[i].numel() / tensors[i].shape[0];
    for (const OwnedRows& rows : divided[i]) {
      bytes[static_cast<std::size_t>(rows.owner)] += (rows.end - rows.first) * row * bytes_per_element(tensors[i]);
    }
  }
  return *std::max_element(bytes.begin(), bytes.end());
}

// Of the buffers that layers share (Residency::kShared), and of what is not divided.
std::int64_t whole_bytes(const GptConfig& config, const BytesPerElement& in_buffers, const BytesPerElement& not_divided) {
  std::map<std::int64_t, std::int64_t> layers;
  std::int64_t bytes = 0;
  for_each_tensor(config, [&](const TensorSpec& tensor) {
    if (is_divided(tensor)) {
      layers[tensor.layer] += tensor.numel() * in_buffers(tensor);
    } else {
      bytes += tensor.numel() * not_divided(tensor);
    }
  });
  std::int64_t even = 0, odd = 0;
  for (const auto& [layer, size] : layers) {
    if (layer >= 0) (layer % 2 == 0 ? even : odd) = std::max(layer % 2 == 0 ? even : odd, size);
  }
  return bytes + even + odd + std::max(layers[kBeforeLayers], layers[kAfterLayers]);
}

// What one reading of a layer's weights sends, and how often a step reads them: ShardedWeights sends nothing that a buffer
// still has from the passes before.
struct Readings {
  std::int64_t forward = 0, backward = 0;
};
Readings readings_of(std::int64_t layer, std::int64_t layers, std::int64_t micro_batches) {
  if (layer < 0) return {micro_batches, 0};
  return {layer < 2 ? 1 : micro_batches, layer < layers - 2 ? micro_batches : 0};
}

}  // namespace

double Cluster::ring_bytes_per_second() const {
  return nodes() > 1 ? std::min(link_bytes_per_second, network_bytes_per_second) : link_bytes_per_second;
}

MemoryEstimate estimate_rank_memory(const GptConfig& config, const TrainingShape& shape, int ranks) {
  MemoryEstimate estimate = estimate_training_memory(config, shape);
  if (ranks == 1) return estimate;
  estimate.optimizer = largest_share(config, ranks, [&](const TensorSpec& tensor) -> std::int64_t {
    return state_bytes_per_element(tensor, shape.state_bytes);
  });
  if (!shape.shard_weights) return estimate;
  const auto compute = [&](const TensorSpec& tensor) -> std::int64_t {
    return computes_in_float32(tensor) ? 4 : shape.compute_bytes;
  };
  const auto master = [&](const TensorSpec& tensor) -> std::int64_t { return compute(tensor) == 4 ? 4 : 4 + compute(tensor); };
  const auto gradient = [](const TensorSpec&) -> std::int64_t { return 4; };
  const auto only_divided = [](const BytesPerElement& bytes) {
    return [bytes](const TensorSpec& tensor) { return is_divided(tensor) ? bytes(tensor) : 0; };
  };
  estimate.weights = largest_share(config, ranks, only_divided(master)) + whole_bytes(config, compute, master);
  estimate.gradients = largest_share(config, ranks, only_divided(gradient)) + whole_bytes(config, gradient, gradient);
  return estimate;
}

std::int64_t largest_batch_of_rank(const GptConfig& config, const TrainingShape& shape, int ranks, std::int64_t bytes) {
  // What other ranks have of weights, gradients and the optimizer's state counts, too. It is the same for every batch.
  const std::int64_t others = estimate_training_memory(config, shape).total() -
                              estimate_rank_memory(config, shape, ranks).total();
  return largest_batch_that_fits(config, shape, bytes + others);
}

StepTraffic step_traffic(const GptConfig& config, int ranks, int compute_bytes, int gradient_bytes) {
  if (ranks == 1) return {};
  StepTraffic traffic{.gradient_calls = config.n_layer + 2, .weight_calls = config.n_layer + 2};
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

StepTraffic sharded_step_traffic(const GptConfig& config, int ranks, std::int64_t micro_batches, int compute_bytes,
                                 int gradient_bytes) {
  if (ranks == 1) return {};
  StepTraffic traffic;
  for_each_tensor(config, [&](const TensorSpec& tensor) {
    const auto share = [&](std::int64_t bytes) { return tensor.numel() * bytes * (ranks - 1) / ranks; };
    const std::int64_t gradients = share(gradient_bytes), weights = share(computes_in_float32(tensor) ? 4 : compute_bytes);
    if (!is_divided(tensor)) {
      traffic.gradients += gradients;
      traffic.weights += weights;
      return;
    }
    const Readings readings = readings_of(tensor.layer, config.n_layer, micro_batches);
    traffic.gradients += micro_batches * gradients;
    traffic.weights += (readings.forward + readings.backward) * weights;
    traffic.backward_weights += readings.backward * weights;
    if (tensor.layer == kBeforeLayers) {
      traffic.last_gradients += gradients;
      traffic.first_weights += weights;
    }
  });
  traffic.gradient_calls = micro_batches * (config.n_layer + 2);
  traffic.weight_calls = 2 * micro_batches;
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
    const Readings readings = readings_of(layer, config.n_layer, micro_batches);
    traffic.weight_calls += readings.forward + readings.backward;
  }
  return traffic;
}

namespace {

std::int64_t micro_batches_of(const TrainingShape& shape, double tokens) {
  const auto micro_batch = static_cast<double>(shape.device_batch_size * shape.sequence_len);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(tokens / micro_batch)));
}

}  // namespace

StepTraffic step_traffic(const GptConfig& config, const TrainingShape& shape, const Cluster& cluster, double tokens) {
  if (!shape.shard_weights) return step_traffic(config, cluster.ranks, shape.compute_bytes, cluster.gradient_bytes);
  return sharded_step_traffic(config, cluster.ranks, micro_batches_of(shape, tokens), shape.compute_bytes,
                              cluster.gradient_bytes);
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
  const StepTraffic traffic = step_traffic(config, shape, cluster, tokens);
  const double again = shape.recompute ? recompute_flops_per_token(config) : 0.0;
  // Sharded weights have communication beneath every pass, others beneath those of one micro-batch.
  const std::int64_t passes = shape.shard_weights ? micro_batches_of(shape, tokens) : 1;
  const auto micro_batch = static_cast<double>(shape.device_batch_size * shape.sequence_len);
  const double tokens_above = shape.shard_weights ? tokens : std::min(tokens, micro_batch);
  const auto computing = [&](double flops) { return cluster.flops_per_second > 0 ? flops / cluster.flops_per_second : 0.0; };
  const auto sending = [&](std::int64_t bytes) { return static_cast<double>(bytes) / cluster.ring_bytes_per_second(); };
  const auto hops = [&](std::int64_t calls) { return static_cast<double>(calls) * (cluster.ranks - 1) * cluster.hop_seconds; };

  StepTime time;
  time.compute = computing(tokens * (config.flops_per_token() + again));
  time.gradients = sending(traffic.gradients) + hops(traffic.gradient_calls);
  time.weights = sending(traffic.weights) + hops(traffic.weight_calls);
  const double again_weights = sending(traffic.backward_weights);
  const auto exposed = [&](double communication, double flops_per_token, std::int64_t exposed_bytes) {
    const double beneath_nothing = static_cast<double>(passes) * sending(exposed_bytes);
    return std::max(communication - computing(tokens_above * flops_per_token), beneath_nothing);
  };
  time.exposed_gradients = exposed(time.gradients + again_weights, kBackward * config.flops_per_token() + again,
                                   traffic.last_gradients);
  time.exposed_weights = exposed(time.weights - again_weights, kForward * config.flops_per_token(), traffic.first_weights);
  return time;
}

}  // namespace nanochat
