#include "distributed/watchdog.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include <spdlog/fmt/fmt.h>

namespace nanochat::distributed {
namespace {

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

std::string beat_key(int rank) { return "beat/" + std::to_string(rank); }

constexpr const char* kLeft = "left";

// The last collective in a beat.
struct LastCall {
  std::uint64_t number = 0;
  std::string name;
};

LastCall last_call_in(const std::string& beat) {
  LastCall call;
  std::uint64_t count = 0;
  std::istringstream stream(beat);
  stream >> count >> call.number >> std::ws;
  std::getline(stream, call.name);
  return call;
}

}  // namespace

struct Watchdog::Shared {
  Shared(std::unique_ptr<StoreClient> client, std::shared_ptr<Failure> known, WatchdogOptions given)
      : store(std::move(client)), failure(std::move(known)), options(std::move(given)),
        interval(beat_interval(options.timeout)), silence(std::min(options.timeout / 2, Milliseconds(60'000))),
        short_silence(std::min(silence, std::max(interval * 4, Milliseconds(3000)))) {
    store->set_limit(silence);
  }

  struct Pending {
    std::uint64_t number;
    const char* name;
    Clock::time_point since;
    std::function<WorkStatus()> status;
  };
  struct Suspicion {
    Clock::time_point since;
    std::string symptom;
  };

  void run() {
    std::unique_lock lock(mutex);
    while (!stop) {
      lock.unlock();
      failure->get() ? after_failure() : round();
      lock.lock();
      wake.wait_for(lock, failure->get() ? std::min(interval, Milliseconds(100)) : interval, [&] { return stop; });
    }
    lock.unlock();
    if (failure->get()) after_failure();
    lock.lock();
    ended = true;
    wake.notify_all();
  }

  // One look at the others, after the others were given one at this rank.
  void round() {
    try {
      const Clock::time_point now = Clock::now();
      const int next = (options.rank + 1) % options.size;
      const auto found = store->exchange(beat_key(options.rank), beat(), {"verdict", beat_key(next)});
      if (found[0]) {
        published = true;
        failure->set(Verdict::from_text(*found[0]));
        return;
      }
      // What this thread itself slept through is not held against others.
      const Clock::duration passed = std::min<Clock::duration>(now - last_round, interval * 2);
      last_round = now;
      unheard = found[1] == heard ? unheard + passed : Clock::duration(0);
      heard = found[1];
      const std::optional<Suspicion> suspected = look_at_works(now);
      if (failure->get()) return;
      if (unheard > (suspected ? short_silence : silence)) {
        publish(fmt::format("{} gave no sign of life for {:.1f} s", options.label(*store, next), seconds(unheard)));
      } else if (suspected && now - suspected->since > silence + interval * 3) {
        publish(fmt::format("{}: {}", options.label(*store, options.rank), suspected->symptom));
      }
    } catch (const StoreLost& lost) {
      published = true;  // nobody is left to be told
      failure->set({.message = fmt::format("{} is gone or cannot be reached: {}", options.store_holder, lost.what())});
    }
  }

  std::string beat() {
    const std::scoped_lock lock(mutex);
    return fmt::format("{} {} {}", ++beats, last_number, last_name);
  }

  // Who is late where a collective does not end; the suspicion where one failed.
  std::optional<Suspicion> look_at_works(Clock::time_point now) {
    std::optional<Pending> late;
    {
      const std::scoped_lock lock(mutex);
      std::erase_if(pending, [&](const Pending& one) {
        const WorkStatus status = one.status();
        if (status == WorkStatus::kFailed && !suspicion) {
          suspicion = {now, fmt::format("{} number {} failed", one.name, one.number)};
        }
        return status != WorkStatus::kPending;
      });
      if (!pending.empty() && now - pending.front().since > options.timeout * 7 / 10) late = pending.front();
    }
    if (late) name_the_late(*late, now);
    const std::scoped_lock lock(mutex);
    return suspicion;
  }

  void name_the_late(const Pending& work, Clock::time_point now) {
    std::vector<std::string> keys;
    for (int rank = 0; rank < options.size; ++rank) keys.push_back(beat_key(rank));
    const auto beats_of_all = store->find_all(keys);
    int behind = -1;
    LastCall least{work.number, ""};
    for (int rank = 0; rank < options.size; ++rank) {
      const LastCall last = last_call_in(beats_of_all[static_cast<std::size_t>(rank)].value_or(""));
      if (last.number < least.number) {
        least = last;
        behind = rank;
      }
    }
    const double waited = seconds(now - work.since);
    if (behind >= 0) {
      publish(fmt::format("{} has not come to {} number {} in {:.1f} s; it {} after {} calls", options.label(*store, behind),
                          work.name, work.number, waited, least.name == kLeft ? "left" : "hangs", least.number));
    } else {
      publish(fmt::format("{} number {} did not end in {:.1f} s, though every rank began it, says {}", work.name, work.number,
                          waited, options.label(*store, options.rank)));
    }
  }

  void publish(const std::string& message) { publish(Verdict{.message = message}); }
  void publish(const Verdict& verdict) {
    const std::string standing = store->set_once("verdict", verdict.to_text());
    published = true;
    failure->set(Verdict::from_text(standing));
  }

  // The others are told, a main thread that waits for a GPU is freed, and one that does not come back is given up.
  void after_failure() {
    const Verdict verdict = *failure->get();
    if (!std::exchange(published, true)) {
      try {
        store->set_once("verdict", verdict.to_text());
      } catch (const StoreLost&) {  // then they know by that
      }
    }
    if (failed_since == Clock::time_point()) {
      failed_since = Clock::now();
      if (options.abort) options.abort();
    }
    const std::scoped_lock lock(mutex);
    const Clock::duration grace = std::min(options.timeout / 4, Milliseconds(10'000));
    if (!stop && !gave_up && options.last_resort && Clock::now() - failed_since > grace) {
      gave_up = true;
      options.last_resort(verdict.code, verdict.message);
    }
  }

  std::unique_ptr<StoreClient> store;
  std::shared_ptr<Failure> failure;
  const WatchdogOptions options;
  const Milliseconds interval, silence,
      short_silence;  // silence: of a rank that has failed; the short one, when calls fail

  std::mutex mutex;  // of what follows
  std::condition_variable wake;
  bool stop = false, ended = false, gave_up = false;
  std::uint64_t beats = 0, last_number = 0;
  const char* last_name = "start";
  std::deque<Pending> pending;
  std::optional<Suspicion> suspicion;

  // Of the thread alone.
  std::optional<std::string> heard;
  Clock::duration unheard{0};
  Clock::time_point last_round = Clock::now(), failed_since;
  bool published = false;
};

Milliseconds Watchdog::beat_interval(Milliseconds timeout) {
  return std::clamp(timeout / 20, Milliseconds(50), Milliseconds(2000));
}

Watchdog::Watchdog(std::unique_ptr<StoreClient> store, std::shared_ptr<Failure> failure, WatchdogOptions options)
    : shared_(std::make_shared<Shared>(std::move(store), std::move(failure), std::move(options))) {
  std::thread([shared = shared_] { shared->run(); }).detach();
}

Watchdog::~Watchdog() {
  std::unique_lock lock(shared_->mutex);
  shared_->stop = true;
  shared_->wake.notify_all();
  // The thread is in a call to the store at most, which may not answer.
  shared_->wake.wait_for(lock, Milliseconds(2000), [&] { return shared_->ended; });
}

std::uint64_t Watchdog::begin(const char* name) {
  const std::scoped_lock lock(shared_->mutex);
  shared_->last_name = name;
  return ++shared_->last_number;
}

void Watchdog::leave() {
  const std::scoped_lock lock(shared_->mutex);
  shared_->last_name = kLeft;
}

void Watchdog::watch(std::uint64_t number, std::function<WorkStatus()> status) {
  const std::scoped_lock lock(shared_->mutex);
  shared_->pending.push_back({number, shared_->last_name, Clock::now(), std::move(status)});
}

void Watchdog::end(std::uint64_t number) {
  const std::scoped_lock lock(shared_->mutex);
  std::erase_if(shared_->pending, [&](const Shared::Pending& one) { return one.number == number; });
}

void Watchdog::blame(std::uint64_t number, const std::string& symptom) {
  {
    const std::scoped_lock lock(shared_->mutex);
    if (!shared_->suspicion) {
      shared_->suspicion = {Clock::now(), fmt::format("{} number {} failed: {}", shared_->last_name, number, symptom)};
    }
  }
  while (!shared_->failure->get()) {
    shared_->failure->wait_until(Clock::now() + Milliseconds(1000), [] { return false; });
  }
  shared_->failure->throw_if_set();
  throw std::logic_error("a failure that was set is gone");
}

}  // namespace nanochat::distributed
