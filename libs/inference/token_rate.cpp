#include "inference/internal/token_rate.h"

namespace nanochat {
namespace {

std::int64_t second_of(TokenRate::Clock::time_point now) {
  return std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
}

}  // namespace

void TokenRate::add(std::int64_t count, Clock::time_point now) {
  const std::int64_t second = second_of(now);
  const auto place = static_cast<std::size_t>(second % (kSeconds + 1));
  if (seconds_[place] != second) counts_[place] = 0;
  seconds_[place] = second;
  counts_[place] += count;
}

double TokenRate::per_second(Clock::time_point now) const {
  const std::int64_t second = second_of(now);
  std::int64_t total = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    if (seconds_[i] < second && seconds_[i] >= second - kSeconds) total += counts_[i];
  }
  return static_cast<double>(total) / kSeconds;
}

}  // namespace nanochat
