#pragma once
// Schedules over training, as in scripts/base_train.py of the reference.

#include <cstdint>

namespace nanochat {

struct LearningRateSchedule {
  std::int64_t num_iterations = 0;
  double warmup_ratio = 0.0;     // share of the iterations that rise linearly from 0
  double warmdown_ratio = 0.2;   // share that fall linearly at the end
  double final_lr_frac = 0.0;    // where they fall to
  // Factor of every learning rate at `iteration`, from 0.
  double multiplier(std::int64_t iteration) const;
};

// Momentum of Muon: 0.85 rising linearly to 0.95 over the first 300 iterations.
double muon_momentum(std::int64_t iteration);

}  // namespace nanochat
