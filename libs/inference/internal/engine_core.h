#pragma once
// For this library only: model, cache and scheduler together, on one thread. Two faces stand on it: engine.cpp gives it
// a thread and messages, generator.cpp calls it until nothing is left to do.

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inference/engine.h"
#include "inference/internal/paged_kv_cache.h"
#include "inference/internal/scheduler.h"
#include "inference/internal/token_rate.h"
#include "model/gpt.h"

namespace nanochat {

// Blocks of a KV cache that holds max_running contexts, or of a quarter of the memory that is left. Throws
// OutOfMemoryError when not even one context fits.
std::int64_t default_kv_blocks(const Gpt& model, const EngineOptions& options);

class EngineCore {
 public:
  // The model must outlive it. Throws as Engine's constructor.
  EngineCore(Gpt& model, const EngineOptions& options);

  // A request ready to be added, its max_tokens cut to the context. Throws as Engine::submit(). Thread-safe.
  static std::unique_ptr<ActiveRequest> prepare(EngineRequest request, const GptConfig& config, const EngineOptions& options);

  void warm_up();
  void add(std::unique_ptr<ActiveRequest> request) { scheduler_.add(std::move(request)); }
  void cancel(RequestId id, std::optional<std::int32_t> sequence);
  void cancel_all();
  std::int64_t invalidate(const std::function<bool(std::span<const std::int32_t>)>& matches);
  void step();  // one pass through the model, and a token for each sequence whose tokens it has seen
  bool idle() const { return scheduler_.idle(); }

  Gpt& model() { return model_; }
  // Requests that have left the queue since the start, and the tokens of their prompts. Read from any thread: who has
  // seen a request's events finds its place in the queue free.
  std::int64_t dequeued() const { return dequeued_.load(); }
  std::int64_t dequeued_tokens() const { return dequeued_tokens_.load(); }
  EngineStats stats() const;

 private:
  struct Draw {  // one token to be drawn, and what came of it
    Sequence* sequence = nullptr;
    std::int64_t row = 0;  // of the logits
    SampledToken token;
    std::vector<SampledToken> top;
    std::exception_ptr error;
  };

  at::Tensor forward(const std::vector<ScheduledChunk>& batch);
  void report_prompt(const ScheduledChunk& chunk, const at::Tensor& states);
  std::vector<Draw> plan_draws(const std::vector<ScheduledChunk>& batch, std::vector<std::int64_t>& rows);
  void draw(std::vector<Draw>& draws, const at::Tensor& logits) const;
  void draw_one(Draw& draw, std::span<const float> logits) const;
  void accept(const Draw& draw);
  void force(Sequence& sequence, const std::vector<std::int32_t>& tokens);
  bool end_if_full(Sequence& sequence);
  // One token more; false when its receiver ended the sequence.
  bool append(Sequence& sequence, const EngineEvent& event);
  void finish(Sequence& sequence, FinishReason reason, std::int32_t stop_token = -1);
  void finish(Sequence& sequence, const EngineEvent& what);
  void finish_index(ActiveRequest& request, std::int32_t index, const EngineEvent& event);
  void cancel_request(ActiveRequest& request);
  void fail(Sequence& sequence, const std::exception_ptr& error, const std::string& doing = {});
  bool emit(ActiveRequest& request, EngineEvent event);
  void leave_queue(ActiveRequest& request);
  void purge();  // requests that are done

  Gpt& model_;
  EngineOptions options_;
  PagedKvCache cache_;
  Scheduler scheduler_;
  std::vector<RequestId> done_;
  EngineStats totals_;
  TokenRate prompt_rate_, completion_rate_;
  std::atomic<std::int64_t> dequeued_ = 0, dequeued_tokens_ = 0;
};

}  // namespace nanochat
