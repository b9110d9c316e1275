#include "training/trainer/horizon.h"

#include <algorithm>
#include <cmath>

namespace nanochat {

std::int64_t Horizon::expected_steps(std::int64_t step, double spent_seconds) const {
  if (seconds <= 0.0) return steps;
  const std::int64_t least = std::max<std::int64_t>(steps, reached(step, spent_seconds) ? step : step + 1);
  if (step == 0 || spent_seconds <= 0.0) return least;
  return std::max<std::int64_t>(least, std::llround(std::ceil(static_cast<double>(step) * seconds / spent_seconds)));
}

}  // namespace nanochat
