#include "optim/schedule.h"

#include <algorithm>
#include <cmath>

namespace nanochat {

double LearningRateSchedule::multiplier(std::int64_t iteration) const {
  // nearbyint rounds halves to even, as Python's round() does.
  const auto warmup = static_cast<std::int64_t>(std::nearbyint(warmup_ratio * static_cast<double>(num_iterations)));
  const auto warmdown = static_cast<std::int64_t>(std::nearbyint(warmdown_ratio * static_cast<double>(num_iterations)));
  if (iteration < warmup) return static_cast<double>(iteration + 1) / static_cast<double>(warmup);
  if (iteration <= num_iterations - warmdown) return 1.0;
  const double progress = static_cast<double>(num_iterations - iteration) / static_cast<double>(warmdown);
  return std::max(0.0, progress) * (1.0 - final_lr_frac) + final_lr_frac;
}

double muon_momentum(std::int64_t iteration) {
  const double fraction = std::min(static_cast<double>(iteration) / 300.0, 1.0);
  return (1.0 - fraction) * 0.85 + fraction * 0.95;
}

}  // namespace nanochat
