#pragma once
// Elapsed time in seconds, by the clock that never goes back.
//
//   const auto start = SteadyClock::now();
//   ...
//   log_info("took {}", human_duration(seconds_since(start)));

#include <chrono>

namespace nanochat {

using SteadyClock = std::chrono::steady_clock;

inline double seconds_between(SteadyClock::time_point begin, SteadyClock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

inline double seconds_since(SteadyClock::time_point begin) { return seconds_between(begin, SteadyClock::now()); }

}  // namespace nanochat
