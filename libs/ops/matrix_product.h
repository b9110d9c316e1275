#pragma once
// Large matrix products in bfloat16 on CPUs with AVX512-BF16, with our own kernels
// (cpu/matrix_product.h). A backward pass multiplies as fast as a forward pass, weight gradients
// are accumulated in float32 without rounding first, and half of a symmetric product is computed.
// Sums are float32, in an order that does not depend on threads or other rows: results are
// batch-invariant bit for bit. A few rows read a packed matrix at the speed of memory. Matrices
// are two-dimensional, bfloat16 unless said otherwise, and contiguous along either dimension.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace nanochat::ops {

// True if there are kernels for x: bfloat16 on a CPU that supports them.
bool has_product_kernels(const at::Tensor& x);
// True if these are the fastest kernels for large products. With AMX (tile multiplication), oneDNN is faster.
bool has_fastest_products(const at::Tensor& x);

// A right-hand side packed for the kernels, for use in several products.
class PackedMatrix {
 public:
  explicit PackedMatrix(const at::Tensor& b);  // (depth, n)
  std::int64_t depth() const { return depth_; }
  std::int64_t columns() const { return columns_; }
  const at::Tensor& data() const { return data_; }

 private:
  std::int64_t depth_, columns_;
  at::Tensor data_;
};

// y (m, n) = alpha a b + beta addend, rounded once. a: (m, depth); addend: undefined, or of the same
// layout as y but not y itself. TORCH_CHECK errors for wrong shapes, or if there are no kernels.
void product(const at::Tensor& a, const PackedMatrix& b, at::Tensor& y, double alpha = 1.0, const at::Tensor& addend = {},
             double beta = 0.0);
// sum (m, n; float32) += a b.
void add_product(const at::Tensor& a, const PackedMatrix& b, at::Tensor& sum);
// y (m, m) = alpha x xᵀ + beta addend for x (m, depth) and a symmetric addend; computes half and mirrors it.
void symmetric_product(const at::Tensor& x, at::Tensor& y, double alpha = 1.0, const at::Tensor& addend = {},
                       double beta = 0.0);

}  // namespace nanochat::ops
