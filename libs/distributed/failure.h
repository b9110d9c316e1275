#pragma once
// Internal to distributed: the end of a run of several processes. The first failure that this process learns of
// stands; whoever waits for other ranks looks at it. Thread-safe.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/errors.h"

namespace nanochat::distributed {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;
inline Clock::time_point never() { return Clock::now() + std::chrono::hours(24 * 365 * 10); }

// Why the run ends: the same text on every rank, which names the rank at fault.
struct Verdict {
  ExitCode code = ExitCode::kOther;
  std::string message;
  std::string to_text() const;  // as the store keeps it
  static Verdict from_text(const std::string& text);
};

class Failure {
 public:
  bool set(const Verdict& verdict);  // false: there was one before
  std::optional<Verdict> get() const;
  void throw_if_set() const;  // DistributedError
  // Until `ready` or a failure, and at most until the deadline. True when ready. `ready` is called under the lock.
  bool wait_until(Clock::time_point deadline, const std::function<bool()>& ready);
  void notify();  // `ready` may have changed

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Verdict> verdict_;
};

// Calls `work` on a thread of its own and waits for it at most that long, or until `give_up` is true: what is asked
// of a socket has no time-out where the other side is stopped. False: it goes on by itself, and must own what it
// uses. Throws what `work` throws.
bool bounded(Milliseconds limit, std::function<void()> work, const std::function<bool()>& give_up = nullptr);

}  // namespace nanochat::distributed
