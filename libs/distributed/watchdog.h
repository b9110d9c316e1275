#pragma once
// Internal to distributed: a thread of each rank that shows the others that it lives, looks at its neighbour, and
// finds out who is at fault when a collective does not end. All over the store; no tensor is touched.
//
//   beat/R     a count that rises, and the last collective that rank R has begun ("57 1042 all_reduce") or "left"
//   verdict    why the run ends; the first to write it is believed
//
// Rank R looks at the beats of R + 1. A rank whose main thread hangs still beats: it is found by its collective,
// which the others have begun and it has not.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "distributed/failure.h"
#include "distributed/store.h"

namespace nanochat::distributed {

struct WatchdogOptions {
  int rank = 0, size = 1;
  Milliseconds timeout{600'000};
  std::string store_holder;                             // "rank 0 (HOST)" or "the launcher", in messages
  std::function<std::string(StoreClient&, int)> label;  // "rank 3 (HOST, process 1234)"
  std::function<void()> abort;                          // frees a main thread that waits for a GPU
  std::function<void(ExitCode, const std::string&)> last_resort;
};

enum class WorkStatus { kPending, kDone, kFailed };

class Watchdog {
 public:
  Watchdog(std::unique_ptr<StoreClient> store, std::shared_ptr<Failure> failure, WatchdogOptions options);
  // Stops; a failure that was set is made known before.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // A collective begins. Returns its number, from 1.
  std::uint64_t begin(const char* name);
  // `status` is asked from the watchdog's thread until it is no longer pending.
  void watch(std::uint64_t number, std::function<WorkStatus()> status);
  // Its results are there.
  void end(std::uint64_t number);
  // This rank begins no more.
  void leave();
  // A call failed, as it does when a rank dies: waits until it is known which, or that it will not be.
  [[noreturn]] void blame(std::uint64_t number, const std::string& symptom);

  static Milliseconds beat_interval(Milliseconds timeout);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;  // the thread's too, which may outlive this while the store does not answer
};

}  // namespace nanochat::distributed
