#pragma once
// Estimate of the memory of a training step.

#include <cstdint>

#include "model/config.h"

namespace nanochat {

struct MemoryEstimate {
  std::int64_t weights = 0;      // master weights, compute copies
  std::int64_t gradients = 0;
  std::int64_t optimizer = 0;    // Muon momentum, AdamW moments
  std::int64_t activations = 0;  // for one device batch, including buffers of the backward pass and the head
  std::int64_t total() const { return weights + gradients + optimizer + activations; }
};

// In bytes. compute_bytes: 4 (float32) or 2 (bfloat16). On a GPU,
// scratch buffers differ and LibTorch's own memory is included.
MemoryEstimate estimate_training_memory(const GptConfig& config, std::int64_t device_batch_size, std::int64_t sequence_len,
                                        int compute_bytes, bool gpu = false);
// The largest device batch size with an estimate within `bytes`; 0 if not even one row fits.
std::int64_t largest_batch_that_fits(const GptConfig& config, std::int64_t sequence_len, int compute_bytes, std::int64_t bytes,
                                     bool gpu = false);

}  // namespace nanochat
