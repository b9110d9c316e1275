#include "ops/peak.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>

#include "ops/linear.h"

namespace nanochat::ops {

double measured_matmul_flops(at::ScalarType dtype, double seconds) {
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16,
              "measured_matmul_flops: expected float32 or bfloat16, got ", dtype);
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t kSize = 2048;
  constexpr double kFlops = 2.0 * kSize * kSize * kSize;
  const at::Tensor x = at::full({kSize, kSize}, 0.5, dtype);
  const at::Tensor w = at::full({kSize, kSize}, 0.25, dtype);
  at::Tensor y = at::empty({kSize, kSize}, dtype);
  linear(x, w, y);  // the first call of a shape also chooses and packs
  const Clock::time_point begin = Clock::now();
  double fastest = 0.0;
  do {
    const Clock::time_point before = Clock::now();
    linear(x, w, y);
    const double elapsed = std::chrono::duration<double>(Clock::now() - before).count();
    fastest = std::max(fastest, kFlops / elapsed);
  } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  return fastest;
}

}  // namespace nanochat::ops
