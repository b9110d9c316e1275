#include "ops/peak.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>

#include "core/elapsed.h"
#include "ops/device.h"
#include "ops/linear.h"

namespace nanochat::ops {

double peak_flops(c10::Device device, at::ScalarType dtype) {
  if (device.is_cuda() && dtype == at::kBFloat16) {
    struct Sheet {
      const char* name;
      double flops;
    };
    // Dense bfloat16 with float32 accumulation, SXM parts; the first name that a GPU's own contains counts.
    static constexpr Sheet kSheets[] = {{"B200", 2250e12}, {"H200", 989e12},  {"H100 PCIe", 756e12}, {"H100 NVL", 835e12},
                                        {"H100", 989e12},  {"GH200", 989e12}, {"A100", 312e12},      {"A800", 312e12},
                                        {"H800", 989e12},  {"L40S", 362e12},  {"RTX 4090", 165e12},  {"A10G", 70e12}};
    const std::string name = describe_gpu(device.index()).name;
    for (const Sheet& sheet : kSheets) {
      if (name.find(sheet.name) != std::string::npos) return sheet.flops;
    }
  }
  return measured_matmul_flops(dtype, 0.3, device);
}

namespace {

// The fastest of the products of one size within `seconds`; at least one.
double fastest_product(std::int64_t size, at::ScalarType dtype, c10::Device device, double seconds) {
  const double flops = 2.0 * std::pow(static_cast<double>(size), 3.0);
  const at::TensorOptions options = at::TensorOptions(dtype).device(device);
  const at::Tensor x = at::full({size, size}, 0.5, options);
  const at::Tensor w = at::full({size, size}, 0.25, options);
  at::Tensor y = at::empty({size, size}, options);
  const auto time = [&] {
    const SteadyClock::time_point before = SteadyClock::now();
    linear(x, w, y);
    synchronize(device);
    return seconds_since(before);
  };
  time();  // the first call of a shape also chooses and packs
  const SteadyClock::time_point begin = SteadyClock::now();
  double least = time();
  while (seconds_since(begin) < seconds) least = std::min(least, time());
  return flops / least;
}

}  // namespace

double measured_matmul_flops(at::ScalarType dtype, double seconds, c10::Device device) {
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "measured_matmul_flops: expected float32 or bfloat16, got ",
              dtype);
  if (device.is_cuda()) return fastest_product(8192, dtype, device, seconds);
  constexpr double kSizes[] = {512, 1024, 2048};
  const double share = seconds / static_cast<double>(std::size(kSizes));
  double fastest = 0.0;
  for (const double size : kSizes) {
    if (fastest > 0.0 && 2.0 * std::pow(size, 3.0) / fastest > share) break;  // one product would take longer
    fastest = std::max(fastest, fastest_product(static_cast<std::int64_t>(size), dtype, device, share));
  }
  return fastest;
}

PeakRate::PeakRate(c10::Device device, at::ScalarType dtype) : PeakRate([=] { return peak_flops(device, dtype); }) {}

PeakRate::PeakRate(std::function<double()> measure) : measure_(std::move(measure)), flops_(measure_()) {}

double PeakRate::utilization(double achieved_flops) {
  while (achieved_flops > flops_ && measurements_ < kMostMeasurements) {
    ++measurements_;
    flops_ = std::max(flops_, measure_());
  }
  flops_ = std::max(flops_, achieved_flops);
  return flops_ > 0.0 ? std::max(0.0, achieved_flops / flops_) : 0.0;
}

}  // namespace nanochat::ops
