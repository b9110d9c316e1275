#pragma once
// Internal to distributed: the failure that ends a run of several processes. The first failure that this process learns of is
// kept. Every function that waits for other ranks checks it. Thread-safe.

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

// The reason why the run ends. Every rank has the same text, which names the rank at fault.
struct Verdict {
  ExitCode code = ExitCode::kOther;
  std::string message;
  std::string to_text() const;  // the form in the store
  static Verdict from_text(const std::string& text);
};

class Failure {
 public:
  bool set(const Verdict& verdict);  // false if there was one already
  std::optional<Verdict> get() const;
  void throw_if_set() const;  // DistributedError
  // Waits until `ready`, a failure or the deadline. Returns true if ready. `ready` is called with the lock held.
  bool wait_until(Clock::time_point deadline, const std::function<bool()>& ready);
  void notify();  // `ready` may have changed

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Verdict> verdict_;
};

// Calls `work` on a new thread and waits for it, at most for the given time or until `give_up` is true. This is for socket
// calls, which have no time-out if the other side is stopped. Returns false if `work` is still running; it must own what it
// uses. Throws what `work` throws.
bool bounded(Milliseconds limit, std::function<void()> work, const std::function<bool()>& give_up = nullptr);

}  // namespace nanochat::distributed
