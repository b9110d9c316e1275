#include "ops/fp8.h"

#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>

#include "ops/cuda/backend.h"
#include "ops/device.h"

namespace nanochat::ops {
namespace {

at::ScalarType type_of(Fp8Format format) { return format == Fp8Format::kE4M3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2; }

double largest_of(Fp8Format format) { return format == Fp8Format::kE4M3 ? 448.0 : 57344.0; }

// The matrix of these 8 bits in float32.
at::Tensor as_float(const at::Tensor& bits, const at::Tensor& scale) { return bits.to(at::kFloat).mul(scale); }

void check_operand(const at::Tensor& bits, const char* what) {
  TORCH_CHECK(bits.defined(), "fp8: ", what, " was not made by to_fp8()");
}

void check(const at::Tensor& x, const at::Tensor& largest) {
  TORCH_CHECK(x.dim() == 2 && fits_fp8(x.size(0), x.size(1)), "to_fp8: rows and columns must be multiples of ", kFp8Multiple,
              ", got ", x.sizes());
  TORCH_CHECK(largest.numel() == 1 && largest.scalar_type() == at::kFloat && largest.device() == x.device(),
              "to_fp8: expected one float32 number on ", x.device(), " as the largest magnitude");
}

// Of x in any type.
Fp8Matrix rounded(const at::Tensor& x, const at::Tensor& largest, Fp8Format format, Fp8Orders wanted) {
  constexpr double kSmallest = 1e-12;  // so that a matrix of zeros has a scale
  const double most = largest_of(format);
  const at::Tensor factor = largest.to(at::kDouble).clamp_min(kSmallest).reciprocal().mul(most).to(at::kFloat);
  const at::Tensor bits = x.to(at::kFloat).mul(factor).clamp(-most, most).to(type_of(format));
  Fp8Matrix result;
  if (wanted.rows) result.rows = bits;
  if (wanted.columns) result.columns = bits.t().contiguous();
  result.scale = factor.reciprocal();
  return result;
}

bool uses_kernels(const at::Tensor& x) { return x.is_cuda() && !use_reference_kernels(); }

}  // namespace

bool has_fp8(at::Device device) { return device.is_cpu() || cuda::has_fp8(device.index()); }

bool fits_fp8(std::int64_t rows, std::int64_t columns) {
  return rows > 0 && columns > 0 && rows % kFp8Multiple == 0 && columns % kFp8Multiple == 0;
}

at::Tensor largest_magnitude(const at::Tensor& x) {
  if (uses_kernels(x)) return cuda::largest_magnitude(x);
  return x.abs().max().to(at::kFloat).view({1});
}

Fp8Matrix to_fp8(const at::Tensor& x, const at::Tensor& largest, Fp8Format format, Fp8Orders wanted) {
  check(x, largest);
  return uses_kernels(x) ? cuda::to_fp8(x, largest, format, wanted) : rounded(x, largest, format, wanted);
}

at::Tensor largest_row_norm(const at::Tensor& x) {
  if (uses_kernels(x)) return cuda::largest_row_norm(x);
  return x.to(at::kFloat).square().sum(1).max().sqrt().view({1});
}

at::Tensor largest_relu_squared(const at::Tensor& z) {
  if (uses_kernels(z)) return cuda::largest_relu_squared(z);
  return z.max().to(at::kFloat).clamp_min(0.0).square().view({1});
}

Fp8Matrix relu_squared_to_fp8(const at::Tensor& z, const at::Tensor& largest) {
  check(z, largest);
  if (uses_kernels(z)) return cuda::relu_squared_to_fp8(z, largest);
  return rounded(z.to(at::kFloat).clamp_min(0.0).square(), largest, Fp8Format::kE4M3, kFp8BothOrders);
}

Fp8Matrix relu_squared_backward_to_fp8(const at::Tensor& dy, const at::Tensor& z, const at::Tensor& largest) {
  check(z, largest);
  TORCH_CHECK(dy.sizes() == z.sizes(), "relu_squared_backward_to_fp8: dy ", dy.sizes(), " and z ", z.sizes(), " differ");
  if (uses_kernels(z)) return cuda::relu_squared_backward_to_fp8(dy, z, largest);
  return rounded(z.to(at::kFloat).clamp_min(0.0).mul(2.0).mul(dy.to(at::kFloat)), largest, Fp8Format::kE5M2, kFp8BothOrders);
}

void fp8_linear(const Fp8Matrix& x, const Fp8Matrix& w, at::Tensor& y) {
  check_operand(x.rows, "x by rows");
  check_operand(w.rows, "w by rows");
  if (y.is_cuda()) return cuda::fp8_product({x.rows, x.scale}, {w.rows.t(), w.scale}, y, /*add=*/false, /*fast=*/true);
  y.copy_(as_float(x.rows, x.scale).mm(as_float(w.rows, w.scale).t()));
}

void fp8_linear_backward_input(const Fp8Matrix& dy, const Fp8Matrix& w, at::Tensor& dx) {
  check_operand(dy.rows, "dy by rows");
  check_operand(w.columns, "w by columns");
  if (dx.is_cuda()) return cuda::fp8_product({dy.rows, dy.scale}, {w.columns.t(), w.scale}, dx, /*add=*/false, /*fast=*/false);
  dx.copy_(as_float(dy.rows, dy.scale).mm(as_float(w.columns, w.scale).t()));
}

void fp8_linear_backward_weight(const Fp8Matrix& dy, const Fp8Matrix& x, at::Tensor& dw) {
  check_operand(dy.columns, "dy by columns");
  check_operand(x.columns, "x by columns");
  if (dw.is_cuda())
    return cuda::fp8_product({dy.columns, dy.scale}, {x.columns.t(), x.scale}, dw, /*add=*/true, /*fast=*/false);
  dw.add_(as_float(dy.columns, dy.scale).mm(as_float(x.columns, x.scale).t()));
}

}  // namespace nanochat::ops
