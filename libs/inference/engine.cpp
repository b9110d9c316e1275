#include "inference/engine.h"

#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "inference/internal/engine_core.h"
#include "ops/device.h"
#include "ops/parallel.h"

namespace nanochat {

void EngineOptions::validate() const {
  const auto at_least = [](std::int64_t value, std::int64_t least, const char* name, const char* why = "") {
    if (value < least) throw ConfigError(fmt::format("{}: found {}, expected at least {}{}", name, value, least, why));
  };
  at_least(block_size, 1, "block_size");
  at_least(kv_blocks, 0, "kv_blocks");
  at_least(max_running, 1, "max_running");
  if (max_batch_tokens != 0) at_least(max_batch_tokens, max_running, "max_batch_tokens", " (max_running)");
  at_least(max_queued, 1, "max_queued");
  at_least(max_queued_tokens, 0, "max_queued_tokens");
}

EngineStats& EngineStats::operator+=(const EngineStats& other) {
  for (std::int64_t EngineStats::*const count : {&EngineStats::running,           &EngineStats::queued,
                                                 &EngineStats::queued_tokens,     &EngineStats::kv_blocks_used,
                                                 &EngineStats::kv_blocks_cached,  &EngineStats::kv_blocks_total,
                                                 &EngineStats::cache_hits,        &EngineStats::cache_misses,
                                                 &EngineStats::requests,          &EngineStats::finished,
                                                 &EngineStats::cancelled,         &EngineStats::failed,
                                                 &EngineStats::refused,           &EngineStats::preemptions,
                                                 &EngineStats::prompt_tokens,     &EngineStats::cached_tokens,
                                                 &EngineStats::completion_tokens, &EngineStats::steps,
                                                 &EngineStats::drafted_tokens,    &EngineStats::accepted_tokens}) {
    this->*count += other.*count;
  }
  prompt_tokens_per_second += other.prompt_tokens_per_second;
  completion_tokens_per_second += other.completion_tokens_per_second;
  replicas.insert(replicas.end(), other.replicas.begin(), other.replicas.end());
  return *this;
}

void EngineStats::keep_counters() {
  ready = draining = false;
  running = queued = queued_tokens = 0;
  kv_blocks_used = kv_blocks_cached = kv_blocks_total = 0;
  prompt_tokens_per_second = completion_tokens_per_second = 0.0;
  replicas.clear();
}

std::int64_t default_batch_tokens(bool gpu) { return gpu ? 8192 : 256; }

namespace {

using Message = std::function<void(EngineCore&)>;

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Gpt> model, const EngineOptions& options)
      : options_(options), config_(model->config()), model_(std::move(model)), core_(*model_, options) {
    model_->pack_weights();
    publish();
  }

  void start() {
    if (options_.warm_up) core_.warm_up();
    ops::release_threads();
    thread_ = std::thread([this] { run(); });
  }

  bool drain(std::optional<std::chrono::milliseconds> limit) {
    std::unique_lock lock(mutex_);
    draining_ = true;
    wake_.notify_one();
    if (!thread_.joinable()) return true;
    const auto done = [&] { return stopped_ || (idle_ && inbox_.empty()); };
    if (limit) return drained_.wait_for(lock, *limit, done);
    drained_.wait(lock, done);
    return true;
  }

  void stop() {
    {
      const std::scoped_lock lock(mutex_);
      stopped_ = true;
    }
    wake_.notify_one();
    drained_.notify_all();
    if (thread_.joinable()) thread_.join();
    // What came before stopped_ was set and the thread has not seen.
    take_messages();
    core_.cancel_all();
    publish();
  }

  Submission submit(EngineRequest spec) {
    std::unique_ptr<ActiveRequest> request = EngineCore::prepare(std::move(spec), config_, options_);
    const std::int64_t tokens = request->prompt_size();
    const std::scoped_lock lock(mutex_);
    if (const Refusal refusal = refuse(tokens); refusal != Refusal::kNone) {
      ++refused_;
      return {0, refusal};
    }
    const RequestId id = request->id = ++submitted_;
    submitted_tokens_ += tokens;
    // std::function must be copyable.
    auto shared = std::make_shared<std::unique_ptr<ActiveRequest>>(std::move(request));
    inbox_.push_back([shared](EngineCore& core) { core.add(std::move(*shared)); });
    wake_.notify_one();
    return {id, Refusal::kNone};
  }

  void check(const EngineRequest& request) const { EngineCore::check(request, config_, options_); }

  void post(Message message) {
    const std::scoped_lock lock(mutex_);
    inbox_.push_back(std::move(message));
    wake_.notify_one();
  }

  EngineStats stats() const {
    const std::scoped_lock lock(mutex_);
    EngineStats stats = stats_;
    stats.ready = ready_;
    stats.draining = draining_ || stopped_;
    stats.requests = static_cast<std::int64_t>(submitted_);
    stats.refused = refused_;
    stats.queued = queued();
    stats.queued_tokens = queued_tokens();
    return stats;
  }

  bool ready() const {
    const std::scoped_lock lock(mutex_);
    return ready_;
  }

  const GptConfig& config() const { return config_; }
  const EngineOptions& options() const { return options_; }

 private:
  std::int64_t queued() const { return static_cast<std::int64_t>(submitted_) - core_.dequeued(); }
  std::int64_t queued_tokens() const { return submitted_tokens_ - core_.dequeued_tokens(); }

  Refusal refuse(std::int64_t tokens) const {
    if (stopped_) return Refusal::kStopped;
    if (draining_) return Refusal::kDraining;
    const bool full = queued() >= options_.max_queued ||
                      (options_.max_queued_tokens > 0 && queued() > 0 && queued_tokens() + tokens > options_.max_queued_tokens);
    return full ? Refusal::kQueueFull : Refusal::kNone;
  }

  void run() {
    ops::use_device(core_.model().device());
    const at::AutoDispatchBelowADInplaceOrView
        no_autograd;  // its bookkeeping of views costs as much as a small model's products
    {
      const std::scoped_lock lock(mutex_);
      ready_ = true;
    }
    while (true) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopped_ || !inbox_.empty() || !core_.idle(); });
      }
      take_messages();
      if (stopping()) return;
      core_.step();
      publish();
    }
  }

  bool stopping() const {
    const std::scoped_lock lock(mutex_);
    return stopped_;
  }

  void take_messages() {
    std::vector<Message> messages;
    {
      const std::scoped_lock lock(mutex_);
      messages.swap(inbox_);
      if (!messages.empty()) idle_ = false;
    }
    for (const Message& message : messages) message(core_);
  }

  void publish() {
    EngineStats stats = core_.stats();
    const std::scoped_lock lock(mutex_);
    stats_ = std::move(stats);
    idle_ = core_.idle();
    if (idle_) drained_.notify_all();
  }

  const EngineOptions options_;
  const GptConfig config_;
  const std::unique_ptr<Gpt> model_;  // on thread_ alone once that runs
  EngineCore core_;             // on thread_ alone once that runs, but for dequeued()
  mutable std::mutex mutex_;    // guards what follows
  std::condition_variable wake_, drained_;
  std::vector<Message> inbox_;
  EngineStats stats_;           // as of the last step
  RequestId submitted_ = 0;
  std::int64_t submitted_tokens_ = 0, refused_ = 0;
  bool ready_ = false, draining_ = false, stopped_ = false, idle_ = true;
  std::thread thread_;
};

Engine::Engine(std::unique_ptr<Gpt> model, const EngineOptions& options) {
  options.validate();
  impl_ = std::make_unique<Impl>(std::move(model), options);
}
Engine::~Engine() { stop(); }

void Engine::start() { impl_->start(); }
bool Engine::drain(std::optional<std::chrono::milliseconds> limit) { return impl_->drain(limit); }
void Engine::stop() { impl_->stop(); }
Submission Engine::submit(EngineRequest request) { return impl_->submit(std::move(request)); }
void Engine::check(const EngineRequest& request) const { impl_->check(request); }
void Engine::cancel(RequestId id) {
  impl_->post([id](EngineCore& core) { core.cancel(id, std::nullopt); });
}
void Engine::cancel(RequestId id, std::int32_t sequence) {
  impl_->post([id, sequence](EngineCore& core) { core.cancel(id, sequence); });
}
void Engine::at_step(std::function<void(Gpt&)> task) {
  impl_->post([task = std::move(task)](EngineCore& core) { task(core.model()); });
}
void Engine::invalidate(std::function<bool(std::span<const std::int32_t>)> matches, std::function<void(std::int64_t)> done) {
  impl_->post([matches = std::move(matches), done = std::move(done)](EngineCore& core) {
    const std::int64_t forgotten = core.invalidate(matches);
    if (done) done(forgotten);
  });
}
void Engine::release_prefix(std::vector<std::int32_t> tokens) {
  impl_->post([tokens = std::move(tokens)](EngineCore& core) { core.release_prefix(tokens); });
}
EngineStats Engine::stats() const { return impl_->stats(); }
bool Engine::ready() const { return impl_->ready(); }
std::int64_t Engine::context_length() const { return impl_->config().sequence_len; }
std::int64_t Engine::vocab_size() const { return impl_->config().vocab_size; }
std::int64_t Engine::max_choices() const { return impl_->options().max_running; }

}  // namespace nanochat
