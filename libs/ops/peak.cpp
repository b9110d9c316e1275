#include "ops/peak.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

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
    static constexpr Sheet kSheets[] = {{"B200", 2250e12},    {"H200", 989e12},     {"H100 PCIe", 756e12},
                                        {"H100 NVL", 835e12}, {"H100", 989e12},     {"GH200", 989e12},
                                        {"A100", 312e12},     {"A800", 312e12},     {"H800", 989e12},
                                        {"L40S", 362e12},     {"RTX 4090", 165e12}, {"A10G", 70e12}};
    const std::string name = describe_gpu(device.index()).name;
    for (const Sheet& sheet : kSheets) {
      if (name.find(sheet.name) != std::string::npos) return sheet.flops;
    }
  }
  return measured_matmul_flops(dtype, 0.2, device);
}

double measured_matmul_flops(at::ScalarType dtype, double seconds, c10::Device device) {
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16,
              "measured_matmul_flops: expected float32 or bfloat16, got ", dtype);
  using Clock = std::chrono::steady_clock;
  const std::int64_t size = device.is_cuda() ? 8192 : 2048;
  const double flops = 2.0 * std::pow(static_cast<double>(size), 3.0);
  const at::TensorOptions options = at::TensorOptions(dtype).device(device);
  const at::Tensor x = at::full({size, size}, 0.5, options);
  const at::Tensor w = at::full({size, size}, 0.25, options);
  at::Tensor y = at::empty({size, size}, options);
  linear(x, w, y);  // the first call of a shape also chooses and packs
  synchronize(device);
  const Clock::time_point begin = Clock::now();
  double fastest = 0.0;
  do {
    const Clock::time_point before = Clock::now();
    linear(x, w, y);
    synchronize(device);
    const double elapsed = std::chrono::duration<double>(Clock::now() - before).count();
    fastest = std::max(fastest, flops / elapsed);
  } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  return fastest;
}

}  // namespace nanochat::ops
