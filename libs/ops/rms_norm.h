#pragma once
// RMSNorm without learnable parameters (Zhang & Sennrich 2019; `norm` in the reference's gpt.py) over the last
// dimension. float32 or bfloat16, statistics in float32. All tensors are contiguous; the caller provides outputs.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

// y = x * rstd with rstd (N) float32 = 1 / sqrt(mean(x^2) + eps). x, y: (..., C); rstd may be undefined.
void rms_norm(const at::Tensor& x, at::Tensor& y, at::Tensor& rstd, double eps);

// residual += branch, then rms_norm(residual): one pass over memory for the residual stream. The residual is float32 or of the
// type of branch and y.
void add_rms_norm(at::Tensor& residual, const at::Tensor& branch, at::Tensor& y, at::Tensor& rstd, double eps);

// dx (= or +=) rstd * (dy - y * mean(dy * y)), from the output y: the input need not be kept.
void rms_norm_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& rstd, at::Tensor& dx, bool accumulate);

}  // namespace nanochat::ops
