#pragma once
// Matrix products of a linear layer without bias, y = x wᵀ. In bfloat16 with our kernels where the processor
// supports them (ops/matrix_product.h), otherwise with ATen (CPU: MKL in float32, oneDNN in bfloat16; GPU: cuBLAS).
// x: (N, K), w: (M, K), y: (N, M), all of one dtype; the caller provides outputs, which may be row-strided.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace nanochat::ops {

void linear(const at::Tensor& x, const at::Tensor& w, at::Tensor& y);                     // y = x wᵀ
void add_linear(const at::Tensor& x, const at::Tensor& w, at::Tensor& y);  // y += x wᵀ, rounded once; with ATen
// The same for inference. With few rows, it reads w at the speed of memory (cpu/row_products.h, cuda/linear_rows.cu).
// Batch-invariant: a row of y does not depend on the other rows or on their number; on a GPU in bfloat16, for up to 32 rows.
void linear_rows(const at::Tensor& x, const at::Tensor& w, at::Tensor& y);
// The same, fused with the operations before and after the product in the model. On a GPU this is one kernel, which saves
// launches; it is batch-invariant for any number of rows (in bfloat16, 32 at a time). On a CPU each operation is a pass of its
// own.
struct LinearFusion {
  bool normalise = false;  // x is the output of rms_norm(x, eps), not rounded
  double eps = 0.0;
  bool relu_squared = false;  // y = max(x wᵀ, 0)^2
  bool add = false;  // y += the result
};
void linear_rows(const at::Tensor& x, const at::Tensor& w, at::Tensor& y, const LinearFusion& fusion);
// The same without batch invariance: uses the faster of the two for this number of rows.
void linear_inference(const at::Tensor& x, const at::Tensor& w, at::Tensor& y);
void linear_backward_input(const at::Tensor& dy, const at::Tensor& w, at::Tensor& dx);  // dx = dy w
// dw (float32) += dyᵀ x. In bfloat16 on a CPU without our kernels, the product is rounded
// once before it is added, as under autocast in the reference; `scratch` (M, K) of the
// dtype of x holds it. Elsewhere it is added in float32, and scratch may be undefined.
void linear_backward_weight(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dw, at::Tensor& scratch);
bool needs_weight_scratch(const at::Tensor& x);
// Bytes that ATen takes on a CPU while it computes y or dx (rows, columns), or the product of a dw (rows, columns). In bfloat16 on
// processors without instructions for it, the whole result is there in float32 before it is rounded.
std::int64_t linear_scratch_bytes(std::int64_t rows, std::int64_t columns, at::ScalarType dtype);
std::int64_t weight_gradient_scratch_bytes(std::int64_t rows, std::int64_t columns, at::ScalarType dtype);

}  // namespace nanochat::ops
