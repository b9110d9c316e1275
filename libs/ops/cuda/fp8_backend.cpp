// The part of the backend for products in 8-bit floating point (ops/fp8.h).

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

}  // namespace

bool has_fp8(int device) {
  constexpr int kHopper = 9;
  int major = 0;
  const bool known = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess;
  return known && major >= kHopper && lt_is_loaded();
}

at::Tensor largest_magnitude(const at::Tensor& x) {
  const On stream(x);
  at::Tensor largest = at::empty({1}, x.options().dtype(at::kFloat));
  cuda::largest_magnitude(narrow_data(x), x.numel(), largest.data_ptr<float>(), stream);
  return largest;
}

void relu_squared_largest(const at::Tensor& x, at::Tensor& y, at::Tensor& largest) {
  const On stream(x);
  cuda::relu_squared_largest(narrow_data(x), narrow_data(y), x.numel(), device_data<float>(largest), stream);
}

void relu_squared_backward_largest(const at::Tensor& dy, const at::Tensor& y, at::Tensor& dx, at::Tensor& largest) {
  const On stream(y);
  cuda::relu_squared_backward_largest(narrow_data(dy), narrow_data(y), narrow_data(dx), y.numel(), device_data<float>(largest),
                                      stream);
}

Fp8Matrix to_fp8(const at::Tensor& x, const at::Tensor& largest, Fp8Format format, Fp8Orders wanted) {
  const On stream(x);
  const std::int64_t rows = x.size(0), columns = x.size(1);
  const at::TensorOptions options = x.options().dtype(format == Fp8Format::kE4M3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2);
  Fp8Matrix result;
  if (wanted.rows) result.rows = at::empty({rows, columns}, options);
  if (wanted.columns) result.columns = at::empty({columns, rows}, options);
  result.scale = at::empty({1}, x.options().dtype(at::kFloat));
  if (!wanted.rows && !wanted.columns) return result;
  cuda::to_fp8(format == Fp8Format::kE4M3 ? Element8::kE4M3 : Element8::kE5M2, narrow_data(x), device_data<float>(largest),
               {.rows = wanted.rows ? result.rows.data_ptr() : nullptr,
                .columns = wanted.columns ? result.columns.data_ptr() : nullptr,
                .scale = result.scale.data_ptr<float>()},
               rows, columns, stream);
  return result;
}

void fp8_product(const Fp8Operand& a, const Fp8Operand& b, at::Tensor& y, bool add, bool fast) {
  const bool computed = lt_product({.a = a.bits,
                                    .b = b.bits,
                                    .scale_a = a.scale,
                                    .scale_b = b.scale,
                                    .result = y,
                                    .addend = add ? y : at::Tensor(),
                                    .beta = 1.0,
                                    .fast_accumulation = fast});
  TORCH_CHECK(computed, "cublasLt has no 8-bit product of ", a.bits.sizes(), " and ", b.bits.sizes());
}

}  // namespace nanochat::ops::cuda
