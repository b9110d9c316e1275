#include "distributed/failure.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <thread>
#include <utility>

#include "distributed/communicator.h"

namespace nanochat::distributed {

std::string Verdict::to_text() const { return std::to_string(static_cast<int>(code)) + " " + message; }

Verdict Verdict::from_text(const std::string& text) {
  int code = 0;
  const auto [stopped, error] = std::from_chars(text.data(), text.data() + text.size(), code);
  const auto digits = static_cast<std::size_t>(stopped - text.data());
  if (error != std::errc() || digits >= text.size()) return {.message = text};
  return {.code = static_cast<ExitCode>(code), .message = text.substr(digits + 1)};
}

bool Failure::set(const Verdict& verdict) {
  const std::scoped_lock lock(mutex_);
  if (verdict_) return false;
  verdict_ = verdict;
  changed_.notify_all();
  return true;
}

std::optional<Verdict> Failure::get() const {
  const std::scoped_lock lock(mutex_);
  return verdict_;
}

void Failure::throw_if_set() const {
  if (const auto verdict = get()) throw DistributedError(verdict->code, verdict->message);
}

bool Failure::wait_until(Clock::time_point deadline, const std::function<bool()>& ready) {
  std::unique_lock lock(mutex_);
  bool is_ready = false;
  changed_.wait_until(lock, deadline, [&] { return (is_ready = ready()) || verdict_; });
  return is_ready;
}

void Failure::notify() {
  const std::scoped_lock lock(mutex_);
  changed_.notify_all();
}

bool bounded(Milliseconds limit, std::function<void()> work, const std::function<bool()>& give_up) {
  struct Call {
    std::mutex mutex;
    std::condition_variable ended_now;
    bool ended = false;
    std::exception_ptr error;
  };
  const auto call = std::make_shared<Call>();
  std::thread([call, work = std::move(work)]() mutable {
    std::exception_ptr error;
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    work = nullptr;  // what it owns goes before anyone is told
    const std::scoped_lock lock(call->mutex);
    call->ended = true;
    call->error = error;
    call->ended_now.notify_all();
  }).detach();
  constexpr Milliseconds kSlice(100);  // between looks at give_up
  const Clock::time_point deadline = Clock::now() + limit;
  std::unique_lock lock(call->mutex);
  while (!call->ended_now.wait_until(lock, give_up ? std::min(deadline, Clock::now() + kSlice) : deadline,
                                     [&] { return call->ended; })) {
    if (Clock::now() >= deadline || give_up()) return false;
  }
  if (call->error) std::rethrow_exception(call->error);
  return true;
}

}  // namespace nanochat::distributed
