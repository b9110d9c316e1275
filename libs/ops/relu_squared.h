#pragma once
// ReLU squared (So et al. 2021, Primer), the activation of the MLP. Any shape, contiguous, float32 or bfloat16.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

void relu_squared(const at::Tensor& x, at::Tensor& y);                              // y = max(x, 0)^2
void relu_squared_backward(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dx);  // dx = 2 max(x, 0) dy; dx may be dy

}  // namespace nanochat::ops
