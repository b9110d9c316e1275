#pragma once
// Internal to model: what the blocks of one forward pass and its backward pass share.

#include <ATen/core/Tensor.h>
#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <string>

#include "model/gpt.h"
#include "model/linear.h"
#include "model/residual_stream.h"
#include "model/sequences.h"

namespace nanochat {

struct Pass {
  TokenIds tokens;
  Sequences sequences;
  LinearMode mode = LinearMode::kTraining;
  at::Tensor largest_reading = {};  // of kFp8Training: float32 (1), a bound of the numbers that a block reads from the stream
  at::Tensor weight_scratch = {};  // Linear::backward's
  const TensorObserver* observer = nullptr;

  // layer < 0: of no layer.
  void observe(const char* what, std::int64_t layer, const at::Tensor& tensor) const {
    if (observer == nullptr || !*observer) return;
    (*observer)(layer < 0 ? std::string(what) : fmt::format("layer {}: {}", layer, what), tensor);
  }
};

}  // namespace nanochat
