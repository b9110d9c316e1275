#pragma once
// ReLU squared (So et al. 2021, Primer), the activation of the MLP. Any shape, contiguous, float32 or bfloat16.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

void relu_squared(const at::Tensor& x, at::Tensor& y);  // y = max(x, 0)^2; y may be x
// dx = 2 max(x, 0) dy, from the output y: max(x, 0) is its root, so the input need not be kept. dx may be dy.
void relu_squared_backward(const at::Tensor& dy, const at::Tensor& y, at::Tensor& dx);
// On a GPU only, for a product whose input was not normalised: y = max(r y, 0)^2 in place, r = rms_norm()'s factor of the same
// row of x, 1 / sqrt(mean(x^2) + eps). y: (N, F), x: (N, C), dense.
void relu_squared_normalised(const at::Tensor& x, at::Tensor& y, double eps);

}  // namespace nanochat::ops
