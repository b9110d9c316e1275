#pragma once
// Number of events per second over the last ten complete seconds.

#include <array>
#include <chrono>
#include <cstdint>

namespace nanochat {

class TokenRate {
 public:
  using Clock = std::chrono::steady_clock;
  void add(std::int64_t count, Clock::time_point now);
  double per_second(Clock::time_point now) const;

 private:
  static constexpr std::int64_t kSeconds = 10;
  std::array<std::int64_t, kSeconds + 1> counts_{};   // second s is at s % size: the last ten, and the current one
  std::array<std::int64_t, kSeconds + 1> seconds_{};  // the second that a count belongs to
};

}  // namespace nanochat
