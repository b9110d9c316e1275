#pragma once
// Estimate of the memory of a training step.

#include <cstdint>

#include "model/config.h"
#include "model/layout.h"

namespace nanochat {

// What a pass of training computes, and on what.
struct TrainingShape {
  std::int64_t device_batch_size = 1, sequence_len = 2048;
  int compute_bytes = 4;   // 4 (float32) or 2 (bfloat16)
  bool gpu = false;        // scratch buffers differ, and LibTorch's own memory is included
  bool recompute = false;  // Gpt::set_recompute()
  bool fp8 = false;        // Gpt::set_fp8()
  bool shard_weights = false;  // of several processes: Residency::kShared
  int state_bytes = 4;     // of a moment of the optimizer: 4 (float32) or 2 (bfloat16)
};

struct MemoryEstimate {
  std::int64_t weights = 0;      // master weights, compute copies
  std::int64_t gradients = 0;
  std::int64_t optimizer = 0;    // Muon momentum, AdamW moments
  std::int64_t activations = 0;  // for one device batch, including buffers of the backward pass and the head
  std::int64_t total() const { return weights + gradients + optimizer + activations; }
};

// Whether OptimizerOptions::state_dtype applies to this parameter: matrices, gates that Muon updates, embeddings and the head.
bool has_large_state(const TensorSpec& tensor);
// Of the optimizer's state: Muon has one moment, AdamW two, of `bytes` each where the state is large, else of 4.
int state_bytes_per_element(const TensorSpec& tensor, int bytes);
// In bytes, for a process that trains alone; optim/rank_plan.h has the estimate for one of several.
MemoryEstimate estimate_training_memory(const GptConfig& config, const TrainingShape& shape);
// The largest device batch size with an estimate within `bytes`; 0 if not even one row fits.
std::int64_t largest_batch_that_fits(const GptConfig& config, TrainingShape shape, std::int64_t bytes);

}  // namespace nanochat
