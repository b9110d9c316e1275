#pragma once
// The peak rate of this machine, to which model FLOP utilisation (MFU) is relative. For GPUs it is in data
// sheets. For a CPU it is measured with large matrix products, which are most of a transformer's work.

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <functional>

namespace nanochat::ops {

// The maximum rate of `device` in `dtype`: the dense matrix rate
// of NVIDIA's data sheets for listed GPUs, otherwise measured.
double peak_flops(c10::Device device, at::ScalarType dtype);

// Floating-point operations per second of the fastest of many short products (512 to 2048 rows and columns;
// 8192 on a GPU) in `dtype` (float32 or bfloat16), with as many threads as kernels use. Short products,
// because some of them run undisturbed beside another program. Takes about `seconds` after a warm-up.
double measured_matmul_flops(at::ScalarType dtype, double seconds = 0.3, c10::Device device = c10::kCPU);

// The peak that achieved rates are relative to. A peak measured while another program was busy
// is too low. When a rate exceeds it, it is measured again, at most kMostMeasurements times;
// after that, the rate becomes the peak. Utilization is therefore never above 1. For one thread.
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
