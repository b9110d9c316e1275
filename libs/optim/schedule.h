#pragma once
// Schedules over training, as in scripts/base_train.py of the reference.

#include <cstdint>

namespace nanochat {

struct LearningRateSchedule {
  std::int64_t num_iterations = 0;
  double warmup_ratio = 0.0;     // share of the iterations that rise linearly from 0
  std::int64_t warmup_steps = 0;  // or their number, which then counts
  double warmdown_ratio = 0.2;   // share that fall linearly at the end
  double final_lr_frac = 0.0;    // where they fall to
  // Factor of every learning rate at `iteration`, from 0.
  double multiplier(std::int64_t iteration) const;
};

// Momentum of Muon: 0.85 rising linearly to 0.95 over the first 300 iterations.
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
