#pragma once
// Matrix products of linear layers in 8-bit floating point (Micikevicius et al. 2022, FP8 Formats for Deep Learning), as
// nanochat-2026-07 trains with --fp8: values and weights in E4M3 (largest magnitude 448), gradients in E5M2 (57,344), one scale
// per tensor and call, sums in float32. Tensor cores add up fewer bits in the forward product ("fast accumulation").
//
// On a GPU of compute capability 9.0 or later. On a CPU the same numbers are computed in float32, slowly, for tests.
//
//   Fp8Matrix x8 = to_fp8(x, largest_magnitude(x), Fp8Format::kE4M3, {.rows = true, .columns = true});
//   fp8_linear(x8, w8, y);
//
// Tensor cores read 8-bit operands along the sum only. A matrix is therefore kept by rows, by columns, or both, as the products
// that read it need it. Rows and columns are multiples of kFp8Multiple.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace nanochat::ops {

enum class Fp8Format { kE4M3, kE5M2 };

// A matrix (R, C) of which every number is 8 bits times `scale`.
struct Fp8Matrix {
  at::Tensor rows;  // (R, C), contiguous; undefined if it was not wanted
  at::Tensor columns;  // (C, R), the transpose, contiguous; undefined if it was not wanted
  at::Tensor scale;  // float32 (1)
};

// What to_fp8() makes.
struct Fp8Orders {
  bool rows = false, columns = false;
};
inline constexpr Fp8Orders kFp8BothOrders = {.rows = true, .columns = true};

inline constexpr std::int64_t kFp8Multiple = 16;  // of the rows and columns of every matrix

// True if the device has 8-bit tensor cores that these products use, or emulates them.
bool has_fp8(at::Device device);
// True if a product over a matrix of this many rows and columns can be computed.
bool fits_fp8(std::int64_t rows, std::int64_t columns);

// float32 (1): max |x|, or NaN if x has one.
at::Tensor largest_magnitude(const at::Tensor& x);
// x (R, C): bfloat16, contiguous (on a CPU also float32). largest: float32 (1), max |x| or an upper bound, which becomes the
// largest magnitude of the format. Rounded to the nearest, ties to even; a number above the bound becomes the largest.
Fp8Matrix to_fp8(const at::Tensor& x, const at::Tensor& largest, Fp8Format format, Fp8Orders wanted);

// float32 (1): the largest Euclidean norm of a row of x (R, C). By Cauchy and Schwarz, no number of x w is larger than this times
// the largest norm of a column of w.
at::Tensor largest_row_norm(const at::Tensor& x);
// The activation of the MLP (ops/relu_squared.h) of a hidden layer z (N, F), bfloat16, for products in 8 bits only: neither its
// output nor the gradient of z are stored in bfloat16.
at::Tensor largest_relu_squared(const at::Tensor& z);  // float32 (1): max y for y = max(z, 0)^2
// y in E4M3, both ways. largest: of y.
Fp8Matrix relu_squared_to_fp8(const at::Tensor& z, const at::Tensor& largest);
// dz = 2 max(z, 0) dy in E5M2, both ways. largest: a bound of |dz|.
Fp8Matrix relu_squared_backward_to_fp8(const at::Tensor& dy, const at::Tensor& z, const at::Tensor& largest);

// x: (N, K), w: (M, K), dy: (N, M); x and w in E4M3, dy in E5M2.
// y (N, M) = x wᵀ, of x.rows and w.rows.
void fp8_linear(const Fp8Matrix& x, const Fp8Matrix& w, at::Tensor& y);
// dx (N, K) = dy w, of dy.rows and w.columns.
void fp8_linear_backward_input(const Fp8Matrix& dy, const Fp8Matrix& w, at::Tensor& dx);
// dw (M, K; float32) += dyᵀ x, of dy.columns and x.columns.
void fp8_linear_backward_weight(const Fp8Matrix& dy, const Fp8Matrix& x, at::Tensor& dw);

}  // namespace nanochat::ops
