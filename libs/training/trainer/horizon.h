#pragma once
// How long a run is: so many steps, or so many seconds inside steps and then at least so many steps. Where time counts, the
// schedule follows it: at half of the time a run is at half of its schedule, however fast its steps were.

#include <cstdint>

namespace nanochat {

struct Horizon {
  std::int64_t steps = 0;  // to take, or, where seconds count, at least
  double seconds = 0.0;    // 0: they do not count

  bool reached(std::int64_t step, double spent_seconds) const { return step >= steps && spent_seconds >= seconds; }
  // Steps of the whole when `step` of them took spent_seconds and the others take as long; more than `step` until the
  // horizon is reached.
  std::int64_t expected_steps(std::int64_t step, double spent_seconds) const;
};

}  // namespace nanochat
