#pragma once
// What this machine can compute, as the yardstick for model FLOP utilisation (MFU). Data sheets give it for GPUs; for a
// CPU it is measured: a large matrix product, which is what a transformer mostly consists of.

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace nanochat::ops {

// What `device` can do at most in `dtype`: the dense matrix rate of NVIDIA's data sheets for GPUs that are listed
// there, otherwise measured.
double peak_flops(c10::Device device, at::ScalarType dtype);

// Floating-point operations per second of the fastest of several products (2048 a side; 8192 on a GPU) in `dtype` (float32 or
// bfloat16), with as many threads as kernels use. Takes about `seconds` after a first product that is not counted.
double measured_matmul_flops(at::ScalarType dtype, double seconds = 0.2, c10::Device device = c10::kCPU);

}  // namespace nanochat::ops
