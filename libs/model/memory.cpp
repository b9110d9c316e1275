#include "model/memory.h"

#include <algorithm>

#include "model/layout.h"
#include "ops/cross_entropy.h"

namespace nanochat {

bool has_large_state(const TensorSpec& tensor) { return is_divided(tensor) || tensor.group == OptimizerGroup::kMatrix; }

int state_bytes_per_element(const TensorSpec& tensor, int bytes) {
  const int moments = tensor.group == OptimizerGroup::kMatrix ? 1 : 2;
  return moments * (has_large_state(tensor) ? bytes : 4);
}

MemoryEstimate estimate_training_memory(const GptConfig& config, const TrainingShape& shape) {
  const int compute_bytes = shape.compute_bytes;
  const bool gpu = shape.gpu;
  MemoryEstimate estimate;
  for_each_tensor(config, [&](const TensorSpec& tensor) {
    estimate.weights += tensor.numel() * (compute_bytes == 4 || computes_in_float32(tensor) ? 4 : 4 + compute_bytes);
    estimate.gradients += tensor.numel() * 4;
    estimate.optimizer += tensor.numel() * state_bytes_per_element(tensor, shape.state_bytes);
  });

  const std::int64_t n = shape.device_batch_size * shape.sequence_len, width = config.n_embd, hidden = config.intermediate_size;
  const std::int64_t qk = (config.n_head + config.n_kv_head) * config.head_dim();
  // Per layer: norm1, norm2, attention out (3 C), qkv, q and k, the MLP's hidden layer; statistics of norms and log-sum-exp in float32.
  // In 8 bits: what the four matrices read, once more, and their weights.
  const std::int64_t narrow = shape.fp8 ? n * (3 * width + hidden) + (config.qkv_size() + width + 2 * hidden) * width : 0;
  const std::int64_t layer = narrow + n * ((3 * width + config.qkv_size() + qk + hidden) * compute_bytes +
                                           (2 + 2 * config.n_head + config.n_kv_head) * 4);
  // With recomputation, one layer at a time has these. The stream at the beginning of each layer is kept instead, but for the
  // first, which begins with the embeddings, and the last, which is not computed again. nanochat-2026-07 keeps it anyway.
  const std::int64_t layers = shape.recompute ? std::min<std::int64_t>(1, config.n_layer) : config.n_layer;
  const std::int64_t beginnings = shape.recompute && !config.is_2026()
                                      ? std::max<std::int64_t>(0, config.n_layer - 2) * n * width * compute_bytes
                                      : 0;
  // Once: the residual stream and its gradients, the gradient of the MLP's hidden layer, the attention's float32 working copies.
  // A GPU's attention keeps the gradient of q in float32 while it runs, and the value heads' gradient apart.
  const std::int64_t attention = gpu ? 4 * width * compute_bytes + width * 4 : 9 * width * 4;
  // nanochat-2026-07 keeps the stream before each layer, and its beginning, its middle and the gradients of both.
  const int gradient_bytes = gpu ? compute_bytes : 4;  // ops::start_gradient_type()
  // The stream itself is float32 in every precision.
  const std::int64_t mixed = config.is_2026() ? n * width * ((config.n_layer + 1) * compute_bytes + 4 + 2 * gradient_bytes) : 0;
  const std::int64_t once = mixed + n * ((6 * width + hidden + config.qkv_size()) * compute_bytes + attention);
  // In 8 bits: the largest gradient of a layer, by rows and by columns.
  const std::int64_t narrow_layer = shape.fp8 ? 2 * n * std::max(hidden, config.qkv_size()) : 0;
  const at::TensorOptions options = at::TensorOptions(compute_bytes == 4 ? at::kFloat : at::kBFloat16)
                                        .device(gpu ? at::kCUDA : at::kCPU);
  const std::int64_t head = narrow_layer + ops::head_bytes(n, width, config.padded_vocab_size(), options);
  const std::int64_t batch = n * 16;  // ids, targets, scales, losses
  estimate.activations = layers * layer + beginnings + once + head + batch;
  if (gpu) {
    // Newton-Schulz iterates on all matrices of one shape at once, in bfloat16: the batch, a product, two Gram matrices.
    const std::int64_t newton_schulz = 2 * config.n_layer * 2 * width * hidden + config.n_layer * 4 * width * width;
    constexpr std::int64_t kLibraries = std::int64_t{1} << 30;  // CUDA context, cuBLAS and cuDNN workspaces
    estimate.activations = std::max(estimate.activations, newton_schulz * 2) + kLibraries;
  }
  return estimate;
}

std::int64_t largest_batch_that_fits(const GptConfig& config, TrainingShape shape, std::int64_t bytes) {
  std::int64_t low = 0, high = 1 << 16;
  while (low < high) {
    shape.device_batch_size = (low + high + 1) / 2;
    if (estimate_training_memory(config, shape).total() <= bytes) {
      low = shape.device_batch_size;
    } else {
      high = shape.device_batch_size - 1;
    }
  }
  return low;
}

}  // namespace nanochat
