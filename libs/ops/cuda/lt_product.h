#pragma once
// Internal to the CUDA backend: matrix products by cublasLt. It can do what ATen's products cannot: the addend may be another
// tensor than the result (ATen copies the addend into the result first), and operands may be of 8-bit floating point with
// scales in device memory. Thread-safe. Results are repeatable: no algorithm that adds with atomic operations is chosen.
//
//   lt_product({.a = p, .b = x, .result = y, .addend = x, .beta = 3.4});  // y = p x + 3.4 x

#include <ATen/core/Tensor.h>

namespace nanochat::ops::cuda {

// Which algorithm computes a product, of those that cublasLt proposes for its shapes and layouts.
enum class LtAlgorithm {
  kFirst,    // the one that cublasLt expects to be the fastest
  kFastest,  // the fastest of up to 16, measured when a shape is first seen; may differ from process to process
};

// result = alpha scale_a scale_b a b + beta addend, accumulated in float32 and rounded once.
struct LtProduct {
  // (M, K) and (K, N), or (n, M, K) and (n, K, N), contiguous along one of the last two dimensions. Both bfloat16; or one
  // float8_e4m3fn and the other that or float8_e5m2, both contiguous along K.
  at::Tensor a, b;
  at::Tensor scale_a = {}, scale_b = {};  // of 8-bit operands: float32, one element
  at::Tensor result;            // (M, N) or (n, M, N); bfloat16 or float32, rows contiguous
  double alpha = 1.0;
  at::Tensor addend = {};  // undefined, or of the sizes, strides and type of result; may be result
  double beta = 0.0;  // ignored without an addend
  // Of 8-bit operands: leave all sums to the tensor cores, which keep fewer bits of them (about 14).
  bool fast_accumulation = false;
  LtAlgorithm algorithm = LtAlgorithm::kFirst;
};

// Whether LibTorch has loaded a cublasLt whose functions are known.
bool lt_is_loaded();
// False if cublasLt has not been loaded or has no kernel for these layouts; the result is then unchanged.
bool lt_product(const LtProduct& product);

}  // namespace nanochat::ops::cuda
