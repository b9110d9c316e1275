#pragma once
// What this machine can compute, as the yardstick for model FLOP utilisation (MFU). Data sheets give it for GPUs; for a
// CPU it is measured: large matrix products, which are what a transformer mostly consists of.

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <functional>

namespace nanochat::ops {

// What `device` can do at most in `dtype`: the dense matrix rate of NVIDIA's data sheets for GPUs that are listed
// there, otherwise measured.
double peak_flops(c10::Device device, at::ScalarType dtype);

// Floating-point operations per second of the fastest of many short products (512 to 2048 a side; 8192 on a GPU) in
// `dtype` (float32 or bfloat16), with as many threads as kernels use: short ones, so that some of them run undisturbed
// beside another program. Takes about `seconds` after first products that are not counted.
double measured_matmul_flops(at::ScalarType dtype, double seconds = 0.3, c10::Device device = c10::kCPU);

// The peak that achieved rates are relative to. One that was measured while another program was busy is too low: when a
// rate exceeds it, it is measured again, at most kMostMeasurements times, and otherwise that rate is the peak from then
// on. So no utilization is more than 1. For one thread.
class PeakRate {
 public:
  static constexpr int kMostMeasurements = 5;
  PeakRate(c10::Device device, at::ScalarType dtype);
  explicit PeakRate(std::function<double()> measure);

  double flops() const { return flops_; }
  double utilization(double achieved_flops);  // in [0, 1]

 private:
  std::function<double()> measure_;
  int measurements_ = 1;
  double flops_;
};

}  // namespace nanochat::ops
