#include "ops/batched_product.h"

#include <ATen/ops/baddbmm.h>

#include "ops/cuda/lt_product.h"
#include "ops/device.h"

namespace nanochat::ops {

void batched_product(const at::Tensor& a, const at::Tensor& b, at::Tensor& y, double alpha, const at::Tensor& addend,
                     double beta) {
  if (y.is_cuda() && !use_reference_kernels() &&
      cuda::lt_product({.a = a, .b = b, .result = y, .alpha = alpha, .addend = addend, .beta = beta})) {
    return;
  }
  at::baddbmm_out(y, addend, a, b, beta, alpha);
}

}  // namespace nanochat::ops
