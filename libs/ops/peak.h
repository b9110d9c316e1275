#pragma once
// What this machine can compute, as the yardstick for model FLOP utilisation (MFU). Data sheets give it for GPUs; for a
// CPU it is measured: a large matrix product, which is what a transformer mostly consists of.

#include <c10/core/ScalarType.h>

namespace nanochat::ops {

// Floating-point operations per second of the fastest of several 2048 x 2048 x 2048 products in `dtype` (float32 or
// bfloat16), with as many threads as kernels use. Takes about `seconds` after a first product that is not counted.
double measured_matmul_flops(at::ScalarType dtype, double seconds = 0.2);

}  // namespace nanochat::ops
