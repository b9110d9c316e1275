#pragma once
// Large matrix products in bfloat16 on CPUs with AVX512-BF16, by kernels of our own (cpu/matrix_product.h): a backward pass
// multiplies as fast as a forward pass, weight gradients are added in float32 without being rounded first, and a symmetric
// product is computed by half. Sums are float32, in an order that depends on neither the threads nor the other rows: a row
// comes out the same, bit for bit, whatever rows stand beside it and however many. A few rows read a packed matrix at the
// speed of memory.
// Matrices are two-dimensional, bfloat16 unless said otherwise, with numbers that follow each other along either dimension.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace nanochat::ops {

// Whether there are kernels for x: bfloat16 on a CPU that has them.
bool has_product_kernels(const at::Tensor& x);
// Whether those are the fastest ones for large products: oneDNN is faster where processors multiply whole tiles (AMX).
bool has_fastest_products(const at::Tensor& x);

// A right-hand side laid out for the kernels: once for several products.
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

// y (m, n) = alpha a b + beta addend, rounded once. a: (m, depth); addend: undefined, or laid out like y and not y itself.
// TORCH_CHECK errors for what does not fit, or where there are no kernels.
void product(const at::Tensor& a, const PackedMatrix& b, at::Tensor& y, double alpha = 1.0, const at::Tensor& addend = {},
             double beta = 0.0);
// sum (m, n; float32) += a b.
void add_product(const at::Tensor& a, const PackedMatrix& b, at::Tensor& sum);
// y (m, m) = alpha x xᵀ + beta addend, for x (m, depth) and a symmetric addend: one half of y mirrors the other.
void symmetric_product(const at::Tensor& x, at::Tensor& y, double alpha = 1.0, const at::Tensor& addend = {}, double beta = 0.0);

}  // namespace nanochat::ops
