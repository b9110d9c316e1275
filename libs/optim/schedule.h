#pragma once
// Schedules over the training, as in scripts/base_train.py of the reference.

#include <cstdint>

namespace nanochat {

struct LearningRateSchedule {
  std::int64_t num_iterations = 0;
  double warmup_ratio = 0.0;      // fraction of the iterations with a linear rise from 0
  std::int64_t warmup_steps = 0;  // number of these iterations; 0: warmup_ratio applies
  double warmdown_ratio = 0.2;    // fraction of the iterations with a linear fall at the end
  double final_lr_frac = 0.0;     // final value, as a fraction
  // Factor for every learning rate at `iteration`, counted from 0.
  double multiplier(std::int64_t iteration) const;
};

// Momentum of Muon: rises linearly from 0.85 to 0.95 over the first 300 iterations.
double muon_momentum(std::int64_t iteration);

// Of nanochat-2026-07.
struct NorMuonSchedule {
  std::int64_t num_iterations = 0;
  double warmdown_ratio = 0.65;
  double weight_decay = 0.28;  // at the beginning
  // 0.85 rising linearly to 0.97 over the first 400 iterations, falling to 0.90 over the last warmdown_ratio of them.
  double momentum(std::int64_t iteration) const;
  // Falls to 0 along a cosine.
  double decay(std::int64_t iteration) const;
};

}  // namespace nanochat
