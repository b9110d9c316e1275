#include "optim/gradient.h"

#include <algorithm>
#include <cmath>

#include "ops/dispatch.h"

namespace nanochat {

double gradient_norm(const std::vector<Parameter>& parameters) {
  constexpr std::int64_t kChunk = 1 << 16;  // fixed, so that the sum does not depend on the number of threads
  double total = 0.0;
  for (const Parameter& parameter : parameters) {
    const auto* g = ops::typed<float>(parameter.grad);
    const std::int64_t n = parameter.grad.numel();
    std::vector<double> partial(static_cast<std::size_t>((n + kChunk - 1) / kChunk));
    ops::parallel_for(static_cast<std::int64_t>(partial.size()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        partial[static_cast<std::size_t>(i)] =
            ops::cpu::optimizer_kernels().sum_of_squares(g + i * kChunk, std::min(kChunk, n - i * kChunk));
      }
    });
    for (const double sum : partial) total += sum;
  }
  return std::sqrt(total);
}

double clip_scale(double norm, double max_norm) {
  if (max_norm <= 0.0) return 1.0;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace nanochat
