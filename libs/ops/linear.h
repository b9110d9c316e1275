#pragma once
// Matrix products of a linear layer without bias, y = x wᵀ, through ATen (MKL in float32, oneDNN in bfloat16).
// x: (N, K), w: (M, K), y: (N, M); all of one dtype; outputs are given by the caller and may be row-strided.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

void linear(const at::Tensor& x, const at::Tensor& w, at::Tensor& y);                     // y = x wᵀ
void linear_backward_input(const at::Tensor& dy, const at::Tensor& w, at::Tensor& dx);    // dx = dy w
// dw (float32) += dyᵀ x. In bfloat16 the product is rounded once before it is added, as under autocast in the
// reference; `scratch` (M, K) of the dtype of x holds it and may be undefined in float32.
void linear_backward_weight(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dw, at::Tensor& scratch);

}  // namespace nanochat::ops
