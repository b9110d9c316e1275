#pragma once
// AdamW (Loshchilov & Hutter 2019) with the arithmetic of torch.optim.AdamW: decoupled decay, bias-corrected moments.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace nanochat {

struct AdamWOptions {
  double beta1 = 0.8, beta2 = 0.95;  // the reference's values
  double eps = 1e-10;
  double weight_decay = 0.0;
};

// One step with gradient * grad_scale; `step` counts from 1. All tensors are float32, contiguous and
// of one shape. The new value is also written to `compute` if that is another (bfloat16) tensor.
void adamw_step(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
                at::Tensor& compute, std::int64_t step, double learning_rate, double grad_scale, const AdamWOptions& options);

}  // namespace nanochat
