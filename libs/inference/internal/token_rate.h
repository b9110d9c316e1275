#pragma once
// Events a second over the last ten whole seconds.

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
  std::array<std::int64_t, kSeconds + 1> counts_{};   // of second s at s % size: the last ten, and the one that runs
  std::array<std::int64_t, kSeconds + 1> seconds_{};  // which second a count belongs to
};

}  // namespace nanochat
