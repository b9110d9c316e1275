#include "serving/internal/answer_admission.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include <spdlog/fmt/fmt.h>

#include "serving/api_error.h"

namespace nanochat {
namespace {

using Clock = AnswerAdmission::Clock;

// Holds up to `per_minute` units and refills at that rate.
class Bucket {
 public:
  Bucket(std::int64_t per_minute, Clock::time_point now)
      : capacity_(static_cast<double>(per_minute)), level_(capacity_), filled_at_(now) {}

  void take(double units) { level_ -= units; }
  // Seconds until there is at least one unit; 0 if there is one.
  double wait(Clock::time_point now) {
    if (capacity_ == 0.0) return 0.0;  // no limit
    const double per_second = capacity_ / 60.0;
    level_ = std::min(capacity_, level_ + per_second * std::chrono::duration<double>(now - filled_at_).count());
    filled_at_ = now;
    return std::max(0.0, (1.0 - level_) / per_second);
  }

 private:
  double capacity_, level_;
  Clock::time_point filled_at_;
};

ApiError too_many(std::int64_t limit, const char* whose) {
  return ApiError::busy(fmt::format("found {} requests of {} being answered, the most that are allowed; try again later", limit,
                                    whose));
}

ApiError too_fast(std::int64_t limit, const char* what, double wait) {
  return ApiError::busy(fmt::format("found more than {} {} per minute for this API key, the most that are allowed", limit,
                                    what))
      .with_header("Retry-After", fmt::format("{:.0f}", std::max(1.0, std::ceil(wait))));
}

}  // namespace

struct AnswerAdmission::Key {
  std::int64_t running = 0;
  Bucket requests, tokens;
};

struct AnswerAdmission::State {
  AnswerLimits limits;
  std::mutex mutex;
  std::int64_t running = 0;
  std::map<std::string, Key> keys;  // only keys that the server accepts come here
};

AnswerAdmission::Place::~Place() {
  const std::lock_guard lock(state_->mutex);
  --state_->running;
  --key_->running;
}

void AnswerAdmission::Place::charge(std::int64_t tokens) {
  const std::lock_guard lock(state_->mutex);
  key_->tokens.take(static_cast<double>(tokens));
}

AnswerAdmission::AnswerAdmission(const AnswerLimits& limits) : state_(std::make_shared<State>()) { state_->limits = limits; }

std::unique_ptr<AnswerAdmission::Place> AnswerAdmission::admit(const std::string& name, Clock::time_point now) {
  State& state = *state_;
  const AnswerLimits& limits = state.limits;
  const std::lock_guard lock(state.mutex);
  if (limits.max_concurrent > 0 && state.running >= limits.max_concurrent) throw too_many(limits.max_concurrent, "all clients");
  Key& key = state.keys
                 .try_emplace(name, Key{.requests = Bucket(limits.key_requests_per_minute, now),
                                        .tokens = Bucket(limits.key_tokens_per_minute, now)})
                 .first->second;
  if (limits.key_max_concurrent > 0 && key.running >= limits.key_max_concurrent) {
    throw too_many(limits.key_max_concurrent, "this API key");
  }
  if (const double wait = key.tokens.wait(now); wait > 0) throw too_fast(limits.key_tokens_per_minute, "tokens", wait);
  if (const double wait = key.requests.wait(now); wait > 0) throw too_fast(limits.key_requests_per_minute, "requests", wait);
  key.requests.take(1.0);
  ++state.running;
  ++key.running;
  return std::make_unique<Place>(state_, &key);
}

}  // namespace nanochat
