#include "inference/replicas.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "inference/internal/prefix_record.h"

namespace nanochat {
namespace {

// A sequence that a replica already has weighs as much as so many prompt tokens that it would have to compute: it slows every
// token of the answer. A longer prefix in one replica's cache therefore does not pile all requests onto that replica.
constexpr std::int64_t kTokensPerSequence = 256;

}  // namespace

class Replicas::Impl {
 public:
  Impl(std::vector<std::unique_ptr<Engine>> engines, const EngineOptions& options) : options_(options) {
    options.validate();
    if (engines.empty()) throw ConfigError("replicas: found no engine, expected at least one");
    for (std::unique_ptr<Engine>& engine : engines) {
      const auto& first = engines_.empty() ? engine : engines_.front();
      if (engine->context_length() != first->context_length() || engine->vocab_size() != first->vocab_size()) {
        throw ConfigError(
            fmt::format("replicas: found models with contexts of {} and {} tokens and vocabularies of {} and {}, "
                        "expected the same model",
                        first->context_length(), engine->context_length(), first->vocab_size(), engine->vocab_size()));
      }
      loads_.push_back({PrefixRecord(options.block_size, engine->stats().kv_blocks_total), 0});
      engines_.push_back(std::move(engine));
    }
  }

  void start() {
    {
      const std::scoped_lock lock(mutex_);
      started_ = true;
    }
    for (const auto& engine : engines_) engine->start();
  }

  bool drain(std::optional<std::chrono::milliseconds> limit) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + limit.value_or(std::chrono::milliseconds(0));
    {
      std::unique_lock lock(mutex_);
      draining_ = true;
      const auto emptied = [&] { return stopped_ || !started_ || waiting_.empty(); };
      if (!limit) {
        emptied_.wait(lock, emptied);
      } else if (!emptied_.wait_until(lock, end, emptied)) {
        return false;
      }
    }
    bool finished = true;
    for (const auto& engine : engines_) {
      if (limit)
        limit = std::max(std::chrono::milliseconds(0), std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()));
      finished = engine->drain(limit) && finished;
    }
    return finished;
  }

  void stop() {
    {
      const std::scoped_lock lock(mutex_);
      stopped_ = true;
      // An engine that stops ends what it has been given, and tells the receivers.
      while (!waiting_.empty()) hand_over(0);
    }
    emptied_.notify_all();
    for (const auto& engine : engines_) engine->stop();
  }

  Submission submit(EngineRequest request) {
    engines_.front()->check(request);
    const auto tokens = static_cast<std::int64_t>(request.prompt.size());
    const std::scoped_lock lock(mutex_);
    if (const Refusal refusal = refuse(tokens); refusal != Refusal::kNone) {
      ++refused_;
      return {0, refusal};
    }
    const RequestId id = ++submitted_;
    waiting_tokens_ += tokens;
    waiting_.push_back({id, std::move(request)});
    dispatch();
    return {id, Refusal::kNone};
  }

  void cancel(RequestId id) {
    const std::scoped_lock lock(mutex_);
    const auto waits = std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& one) { return one.id == id; });
    // An engine tells the receiver, on its thread, as of any request.
    if (waits != waiting_.end()) {
      std::rotate(waiting_.begin(), waits, waits + 1);
      hand_over(0);
    }
    if (const auto place = places_.find(id); place != places_.end()) engines_[place->second.engine]->cancel(place->second.id);
  }

  void invalidate(std::function<bool(std::span<const std::int32_t>)> matches, std::function<void(std::int64_t)> done) {
    {
      const std::scoped_lock lock(mutex_);
      for (Load& load : loads_) load.prefixes.clear();
    }
    struct Total {
      std::atomic<std::int64_t> blocks = 0;
      std::atomic<std::size_t> missing = 0;
    };
    auto total = std::make_shared<Total>();
    total->missing = engines_.size();
    for (const auto& engine : engines_) {
      engine->invalidate(matches, [total, done](std::int64_t blocks) {
        total->blocks += blocks;
        if (--total->missing == 0 && done) done(total->blocks);
      });
    }
  }

  EngineStats stats() const {
    EngineStats sum;
    sum.ready = true;
    for (const auto& engine : engines_) {
      EngineStats one = engine->stats();
      sum.ready = sum.ready && one.ready;
      sum += one;
      sum.replicas.push_back(std::move(one));
    }
    const std::scoped_lock lock(mutex_);
    sum.draining = draining_ || stopped_;
    sum.queued += static_cast<std::int64_t>(waiting_.size());
    sum.queued_tokens += waiting_tokens_;
    sum.requests = static_cast<std::int64_t>(submitted_);
    sum.refused = refused_;
    return sum;
  }

  const std::vector<std::unique_ptr<Engine>>& engines() const { return engines_; }

 private:
  // What a replica has been given.
  struct Load {
    PrefixRecord prefixes;
    std::int64_t sequences = 0;  // not finished
  };
  struct Waiting {
    RequestId id = 0;
    EngineRequest request;
  };
  struct Place {
    std::size_t engine = 0;
    RequestId id = 0;  // there
  };

  Refusal refuse(std::int64_t tokens) const {
    if (stopped_) return Refusal::kStopped;
    if (draining_) return Refusal::kDraining;
    const bool full = static_cast<std::int64_t>(waiting_.size()) >= options_.max_queued ||
                      (options_.max_queued_tokens > 0 && !waiting_.empty() &&
                       waiting_tokens_ + tokens > options_.max_queued_tokens);
    return full ? Refusal::kQueueFull : Refusal::kNone;
  }

  // The replica for a request, or engines_.size() if none has room.
  std::size_t choose(const EngineRequest& request) const {
    std::size_t best = loads_.size();
    std::int64_t least = 0;
    for (std::size_t i = 0; i < loads_.size(); ++i) {
      const Load& load = loads_[i];
      if (load.sequences + request.n > options_.max_running) continue;
      const std::int64_t cost = kTokensPerSequence * load.sequences - load.prefixes.match(request.prompt);
      if (best < loads_.size() && cost >= least) continue;
      best = i;
      least = cost;
    }
    return best;
  }

  void dispatch() {
    while (!waiting_.empty()) {
      const std::size_t engine = choose(waiting_.front().request);
      if (engine == loads_.size()) return;
      hand_over(engine);
    }
    emptied_.notify_all();
  }

  // Gives the first request of the queue to an engine.
  void hand_over(std::size_t engine) {
    const RequestId id = waiting_.front().id;
    EngineRequest request = std::move(waiting_.front().request);
    waiting_.pop_front();
    waiting_tokens_ -= static_cast<std::int64_t>(request.prompt.size());
    loads_[engine].sequences += request.n;
    loads_[engine].prefixes.add(request.prompt);
    request.on_event = [this, id, n = request.n, inner = std::move(request.on_event)](const EngineEvent& event) {
      if (event.kind == EngineEventKind::kDone) finished(id, n);
      if (!inner) return true;
      EngineEvent renamed = event;
      renamed.request = id;
      return inner(renamed);
    };
    const Submission submission = engines_[engine]->submit(std::move(request));
    places_[id] = {engine, submission.id};
  }

  void finished(RequestId id, std::int64_t sequences) {
    const std::scoped_lock lock(mutex_);
    const auto place = places_.find(id);
    loads_[place->second.engine].sequences -= sequences;
    places_.erase(place);
    dispatch();
  }

  const EngineOptions options_;
  std::vector<std::unique_ptr<Engine>> engines_;
  // Guards what follows. It is held while an engine's own lock is taken, never the other way round.
  mutable std::mutex mutex_;
  std::condition_variable emptied_;  // waiting_
  std::vector<Load> loads_;          // of each engine
  std::deque<Waiting> waiting_;
  std::int64_t waiting_tokens_ = 0, refused_ = 0;
  std::unordered_map<RequestId, Place> places_;  // of requests that an engine has
  RequestId submitted_ = 0;
  bool started_ = false, draining_ = false, stopped_ = false;
};

EngineOptions Replicas::engine_options(EngineOptions options) {
  // At its end a Replicas hands over the whole queue.
  options.max_queued += options.max_running;
  options.max_queued_tokens = 0;
  return options;
}

Replicas::Replicas(std::vector<std::unique_ptr<Engine>> engines, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(std::move(engines), options)) {}
Replicas::~Replicas() { stop(); }

void Replicas::start() { impl_->start(); }
bool Replicas::drain(std::optional<std::chrono::milliseconds> limit) { return impl_->drain(limit); }
void Replicas::stop() { impl_->stop(); }
Submission Replicas::submit(EngineRequest request) { return impl_->submit(std::move(request)); }
void Replicas::cancel(RequestId id) { impl_->cancel(id); }
void Replicas::invalidate(std::function<bool(std::span<const std::int32_t>)> matches, std::function<void(std::int64_t)> done) {
  impl_->invalidate(std::move(matches), std::move(done));
}
void Replicas::release_prefix(std::vector<std::int32_t> tokens) {
  for (const auto& engine : impl_->engines()) engine->release_prefix(tokens);
}
EngineStats Replicas::stats() const { return impl_->stats(); }
bool Replicas::ready() const {
  const auto& engines = impl_->engines();
  return std::all_of(engines.begin(), engines.end(), [](const auto& engine) { return engine->ready(); });
}
std::int64_t Replicas::context_length() const { return impl_->engines().front()->context_length(); }
std::int64_t Replicas::vocab_size() const { return impl_->engines().front()->vocab_size(); }
std::int64_t Replicas::max_choices() const { return impl_->engines().front()->max_choices(); }

}  // namespace nanochat
