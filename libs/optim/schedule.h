#pragma once
// Schedules over the training, as in scripts/base_train.py of the reference.

#include <cstdint>

namespace nanochat {

struct LearningRateSchedule {
  std::int64_t num_iterations = 0;
  double warmup_ratio = 0.0;     // fraction of the iterations with a linear rise from 0
  double warmdown_ratio = 0.2;   // fraction of the iterations with a linear fall at the end
  double final_lr_frac = 0.0;    // final value, as a fraction
  // Factor for every learning rate at `iteration`, counted from 0.
  double multiplier(std::int64_t iteration) const;
};

// Momentum of Muon: rises linearly from 0.85 to 0.95 over the first 300 iterations.
double muon_momentum(std::int64_t iteration);

}  // namespace nanochat
