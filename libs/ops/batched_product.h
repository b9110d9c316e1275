#pragma once
// Products of batches of matrices with an addend, for Newton-Schulz iterations on a GPU.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

// y (n, M, N) = alpha a b + beta addend, accumulated in float32 and rounded once. a: (n, M, K), b: (n, K, N), all of one
// dtype, float32 or bfloat16. addend: of the sizes and strides of y, but not y itself; it may be a or b. On a GPU in
// bfloat16 the product reads the addend (cublasLt); elsewhere the addend is copied to y first (ATen).
void batched_product(const at::Tensor& a, const at::Tensor& b, at::Tensor& y, double alpha, const at::Tensor& addend,
                     double beta);

}  // namespace nanochat::ops
