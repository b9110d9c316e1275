#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nanochat {
namespace {

// nearbyint rounds halves to even, as Python's round() does.
std::int64_t share_of(std::int64_t iterations, double ratio) {
  return static_cast<std::int64_t>(std::nearbyint(ratio * static_cast<double>(iterations)));
}

}  // namespace

double LearningRateSchedule::multiplier(std::int64_t iteration) const {
  const std::int64_t warmup = warmup_steps > 0 ? warmup_steps : share_of(num_iterations, warmup_ratio);
  const std::int64_t warmdown = share_of(num_iterations, warmdown_ratio);
  if (iteration < warmup) return static_cast<double>(iteration + 1) / static_cast<double>(warmup);
  if (iteration <= num_iterations - warmdown) return 1.0;
  const double progress = static_cast<double>(num_iterations - iteration) / static_cast<double>(warmdown);
  return std::max(0.0, progress) * (1.0 - final_lr_frac) + final_lr_frac;
}

double muon_momentum(std::int64_t iteration) {
  const double fraction = std::min(static_cast<double>(iteration) / 300.0, 1.0);
  return (1.0 - fraction) * 0.85 + fraction * 0.95;
}

double NorMuonSchedule::momentum(std::int64_t iteration) const {
  constexpr std::int64_t kWarmup = 400;
  constexpr double kFirst = 0.85, kPeak = 0.97, kLast = 0.90;
  const std::int64_t warmdown = share_of(num_iterations, warmdown_ratio), start = num_iterations - warmdown;
  const auto between = [](double from, double to, double share) { return (1.0 - share) * from + share * to; };
  if (iteration < kWarmup) return between(kFirst, kPeak, static_cast<double>(iteration) / static_cast<double>(kWarmup));
  if (iteration < start || warmdown == 0) return kPeak;
  return between(kPeak, kLast, std::min(1.0, static_cast<double>(iteration - start) / static_cast<double>(warmdown)));
}

double NorMuonSchedule::decay(std::int64_t iteration) const {
  if (num_iterations == 0) return weight_decay;
  const double share = std::min(1.0, static_cast<double>(iteration) / static_cast<double>(num_iterations));
  return weight_decay * 0.5 * (1.0 + std::cos(std::numbers::pi * share));
}

}  // namespace nanochat
