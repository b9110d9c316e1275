// The part of the backend for products in 8-bit floating point (ops/fp8.h).

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#include "ops/cuda/backend.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/lt_product.h"
#include "ops/cuda/tensors.h"

namespace nanochat::ops::cuda {
namespace {

// Memory of a contiguous bfloat16 tensor that 16-byte accesses fit.
void* narrow_data(const at::Tensor& x) {
  constexpr std::uintptr_t kBytes = 16;
  TORCH_CHECK(x.is_cuda() && x.is_contiguous() && x.scalar_type() == at::kBFloat16 && x.numel() % 8 == 0 &&
                  reinterpret_cast<std::uintptr_t>(x.data_ptr()) % kBytes == 0,
              "fp8: expected a contiguous bfloat16 tensor in multiples of 8 numbers on a GPU, got ", x.scalar_type(), " ",
              x.sizes(), " on ", x.device());
  return x.data_ptr();
}

// Calls launch(largest) with memory for the result.
template <class Launch>
at::Tensor largest_of(const at::Tensor& x, const Launch& launch) {
  at::Tensor largest = at::empty({1}, x.options().dtype(at::kFloat));
  launch(largest.data_ptr<float>());
  return largest;
}

// Calls launch(pointers) with memory for a matrix of the sizes of x.
template <class Launch>
Fp8Matrix matrix_of(const at::Tensor& x, Fp8Format format, Fp8Orders wanted, const Launch& launch) {
  const at::TensorOptions options = x.options().dtype(format == Fp8Format::kE4M3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2);
  Fp8Matrix result;
  if (wanted.rows) result.rows = at::empty({x.size(0), x.size(1)}, options);
  if (wanted.columns) result.columns = at::empty({x.size(1), x.size(0)}, options);
  result.scale = at::empty({1}, x.options().dtype(at::kFloat));
  if (!wanted.rows && !wanted.columns) return result;
  launch(Fp8Pointers{.rows = wanted.rows ? result.rows.data_ptr() : nullptr,
                     .columns = wanted.columns ? result.columns.data_ptr() : nullptr,
                     .scale = result.scale.data_ptr<float>()});
  return result;
}

}  // namespace

bool has_fp8(int device) {
  constexpr int kHopper = 9;
  int major = 0;
  const bool known = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess;
  return known && major >= kHopper && lt_is_loaded();
}

at::Tensor largest_magnitude(const at::Tensor& x) {
  const On stream(x);
  return largest_of(x, [&](float* largest) { cuda::largest_magnitude(narrow_data(x), x.numel(), largest, stream); });
}

at::Tensor largest_relu_squared(const at::Tensor& z) {
  const On stream(z);
  return largest_of(z, [&](float* largest) { cuda::largest_relu_squared(narrow_data(z), z.numel(), largest, stream); });
}

at::Tensor largest_row_norm(const at::Tensor& x) {
  const On stream(x);
  TORCH_CHECK(x.dim() == 2 && x.size(1) % 8 == 0, "largest_row_norm: rows must be multiples of 8 numbers, got ", x.sizes());
  return largest_of(x, [&](float* largest) { cuda::largest_row_norm(narrow_data(x), x.size(0), x.size(1), largest, stream); });
}

Fp8Matrix to_fp8(const at::Tensor& x, const at::Tensor& largest, Fp8Format format, Fp8Orders wanted) {
  const On stream(x);
  return matrix_of(x, format, wanted, [&](const Fp8Pointers& to) {
    cuda::to_fp8(format == Fp8Format::kE4M3 ? Element8::kE4M3 : Element8::kE5M2, narrow_data(x), device_data<float>(largest),
                 to, x.size(0), x.size(1), stream);
  });
}

Fp8Matrix relu_squared_to_fp8(const at::Tensor& z, const at::Tensor& largest) {
  const On stream(z);
  return matrix_of(z, Fp8Format::kE4M3, kFp8BothOrders, [&](const Fp8Pointers& to) {
    cuda::relu_squared_to_fp8(narrow_data(z), device_data<float>(largest), to, z.size(0), z.size(1), stream);
  });
}

Fp8Matrix relu_squared_backward_to_fp8(const at::Tensor& dy, const at::Tensor& z, const at::Tensor& largest) {
  const On stream(z);
  return matrix_of(z, Fp8Format::kE5M2, kFp8BothOrders, [&](const Fp8Pointers& to) {
    cuda::relu_squared_backward_to_fp8(narrow_data(dy), narrow_data(z), device_data<float>(largest), to, z.size(0), z.size(1),
                                       stream);
  });
}

void fp8_product(const Fp8Operand& a, const Fp8Operand& b, at::Tensor& y, bool add, bool fast) {
  // Measured, since cublasLt's first choice takes up to a quarter longer.
  const bool repeatable = at::globalContext().deterministicAlgorithms();
  const LtAlgorithm algorithm = repeatable ? LtAlgorithm::kFirst : LtAlgorithm::kFastest;
  const bool computed = lt_product({.a = a.bits,
                                    .b = b.bits,
                                    .scale_a = a.scale,
                                    .scale_b = b.scale,
                                    .result = y,
                                    .addend = add ? y : at::Tensor(),
                                    .beta = 1.0,
                                    .fast_accumulation = fast,
                                    .algorithm = algorithm});
  TORCH_CHECK(computed, "cublasLt has no 8-bit product of ", a.bits.sizes(), " and ", b.bits.sizes());
}

}  // namespace nanochat::ops::cuda
