#pragma once
// Length of a run: a number of steps, or a number of seconds inside steps with a minimum number of steps. With seconds,
// the schedule follows the time: after half of the time, a run is at half of its schedule, however fast its steps are.

#include <cstdint>

namespace nanochat {

struct Horizon {
  std::int64_t steps = 0;  // number of steps; with seconds, the minimum
  double seconds = 0.0;    // 0: no limit by time

  bool reached(std::int64_t step, double spent_seconds) const { return step >= steps && spent_seconds >= seconds; }
  // Estimated number of steps of the whole run, if `step` steps took spent_seconds
  // and the others take as long; more than `step` until the horizon is reached.
  std::int64_t expected_steps(std::int64_t step, double spent_seconds) const;
};

}  // namespace nanochat
