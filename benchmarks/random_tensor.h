#pragma once
// For benchmarks only: tensors of normal values, the same in every run.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#include "core/random.h"

namespace nanochat::benchmarks {

inline at::Tensor random_tensor(at::IntArrayRef sizes, at::ScalarType dtype, double scale = 1.0) {
  Rng rng(1);
  const at::Tensor values = at::empty(sizes, at::kFloat);
  float* value = values.data_ptr<float>();
  for (std::int64_t i = 0; i < values.numel(); ++i) value[i] = static_cast<float>(scale * rng.normal());
  return values.to(dtype);
}

// Benchmarks take the dtype as an argument: 0 float32, 1 bfloat16.
inline at::ScalarType dtype_of(std::int64_t argument) { return argument == 0 ? at::kFloat : at::kBFloat16; }

}  // namespace nanochat::benchmarks
