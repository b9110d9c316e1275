#pragma once
// Internal to distributed: a thread of each rank that sends heartbeats, checks those of its neighbour, and finds the rank at
// fault if a collective does not end. It uses only the store and no tensors.
//
//   beat/R     a rising count, and the last collective that rank R has begun ("57 1042 all_reduce"), or "left"
//   verdict    the reason why the run ends; the first one written counts
//
// Rank R checks the heartbeats of rank R + 1. A rank whose main thread hangs still sends heartbeats. It is found by its
// collective, which the other ranks have begun and this rank has not.

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
  std::function<void()> abort;                          // ends the wait of a main thread for a GPU
  std::function<void(ExitCode, const std::string&)> last_resort;
};

enum class WorkStatus { kPending, kDone, kFailed };

class Watchdog {
 public:
  Watchdog(std::unique_ptr<StoreClient> store, std::shared_ptr<Failure> failure, WatchdogOptions options);
  // Stops, after a failure has been published.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Records that a collective begins. Returns its number, from 1.
  std::uint64_t begin(const char* name);
  // The watchdog's thread calls `status` until it is no longer pending.
  void watch(std::uint64_t number, std::function<WorkStatus()> status);
  // Records that its results are complete.
  void end(std::uint64_t number);
  // Records that this rank begins no more collectives.
  void leave();
  // Call when a collective failed, as it does if a rank dies. Waits until the rank at fault is known or cannot be found.
  [[noreturn]] void blame(std::uint64_t number, const std::string& symptom);

  static Milliseconds beat_interval(Milliseconds timeout);

 private:
  struct Shared;
  std::shared_ptr<Shared>
      shared_;  // shared with the thread, which may live longer than this object if the store does not answer
};

}  // namespace nanochat::distributed
