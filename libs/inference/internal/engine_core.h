#pragma once
// For this library only: model, cache and scheduler on one thread. It has two users:
// engine.cpp adds a thread and messages; generator.cpp calls it until nothing is left to do.

#include <atomic>
#include <cstdint>
#include <deque>
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
#include "inference/internal/step_runner.h"
#include "inference/internal/token_rate.h"
#include "model/gpt.h"

namespace nanochat {

// Number of blocks of a KV cache for max_running contexts, or for a quarter of
// the available memory. Throws OutOfMemoryError if not even one context fits.
std::int64_t default_kv_blocks(const Gpt& model, const EngineOptions& options);

class EngineCore {
 public:
  // The model must outlive it. Throws as Engine's constructor.
  EngineCore(Gpt& model, const EngineOptions& options);

  // Throws as Engine::submit(). Thread-safe.
  static void check(const EngineRequest& request, const GptConfig& config, const EngineOptions& options);
  // Creates a request with max_tokens limited to the context. Throws as Engine::submit(). Thread-safe.
  static std::unique_ptr<ActiveRequest> prepare(EngineRequest request, const GptConfig& config, const EngineOptions& options);

  void warm_up();
  void add(std::unique_ptr<ActiveRequest> request) { scheduler_.add(std::move(request)); }
  void cancel(RequestId id, std::optional<std::int32_t> sequence);
  void cancel_all();
  std::int64_t invalidate(const std::function<bool(std::span<const std::int32_t>)>& matches);
  void release_prefix(std::span<const std::int32_t> tokens) { scheduler_.release_prefix(tokens); }
  // One pass through the model, and a token for each sequence whose tokens it has seen. Where steps overlap: starts one, and
  // reads the tokens of the one before.
  void step();
  bool idle() const { return scheduler_.idle() && under_way_.empty(); }

  Gpt& model() { return model_; }
  // Number of requests that have left the queue since the start, and of their prompt tokens. Readable
  // from any thread: when a request's events have been seen, its place in the queue is free.
  std::int64_t dequeued() const { return dequeued_.load(); }
  std::int64_t dequeued_tokens() const { return dequeued_tokens_.load(); }
  EngineStats stats() const;

 private:
  struct Draw {  // one token to be drawn, and its result
    Sequence* sequence = nullptr;
    std::int64_t row = 0;  // of the logits
    std::int64_t drafted = 0;  // tokens of the sequence's draft before it: it counts if those are drawn
    std::int64_t number = 0;  // of the sequence, to be compared with Sequence::void_draws
    SampledToken token;
    std::vector<SampledToken> top;
    std::exception_ptr error;
  };

  // A step whose draws have not been read.
  struct UnderWay {
    std::vector<Draw> draws;
    std::unique_ptr<PendingDraws> results;
    bool drafts = false;  // how many of the draws count is known when they have been read
  };
  // Logits (rows, vocab) on the CPU of `rows` tokens from `first` on of a chunk that the model has seen.
  using ChunkLogits = std::function<at::Tensor(std::int64_t first, std::int64_t rows)>;

  void step_alone(const std::vector<ScheduledChunk>& batch);
  void start(const std::vector<ScheduledChunk>& batch);
  void start_draws(std::vector<Draw> draws, std::vector<std::int64_t> rows);
  void read_oldest();
  void begin_step(const std::vector<ScheduledChunk>& batch);
  void add_drafts(std::vector<ScheduledChunk>& batch);
  // Where the draws after drafted tokens are made before it is known which of them count: ends the draft before a token that
  // its constraint does not allow, and finds out what it allows after each token.
  static void constrain_draft(Sequence& sequence);
  // Draws of a step in rounds: a draw after a drafted token follows in the next round, if the token was drawn.
  void draw_in_rounds(std::vector<Draw> draws, const at::Tensor& logits);
  // Whether a draw after drafted tokens counts: those are the tokens that were drawn. Then the model has processed them.
  bool confirm_draft(const Draw& draw);
  void fail_all(const std::vector<ScheduledChunk>& batch);
  at::Tensor forward(const std::vector<ScheduledChunk>& batch);
  void report_prompt(const ScheduledChunk& chunk, const ChunkLogits& logits);
  std::vector<Draw> plan_draws(const std::vector<ScheduledChunk>& batch, std::vector<std::int64_t>& rows);
  static std::vector<std::uint64_t> allowed_tokens(TokenConstraint& constraint, const ActiveRequest& request,
                                                   std::int64_t generated);
  static void allow(Sequence& sequence);  // fills in Sequence::allowed, if it has a constraint
  // drafted: number of tokens that are taken as drawn, after those that the sequence has.
  static DrawContext context_of(const Sequence& sequence, std::int64_t drafted = 0);
  static ops::SampleRow sample_row(const Sequence& sequence, std::int64_t drafted);
  void draw(std::vector<Draw>& draws, const at::Tensor& logits) const;
  void draw_one(Draw& draw, std::span<const float> logits) const;
  void accept(const Draw& draw);
  void force(Sequence& sequence, const std::vector<std::int32_t>& tokens);
  bool end_if_full(Sequence& sequence);
  // Adds one token; false if its receiver ended the sequence.
  bool append(Sequence& sequence, const EngineEvent& event);
  void finish(Sequence& sequence, FinishReason reason, std::int32_t stop_token = -1);
  void finish(Sequence& sequence, const EngineEvent& what);
  void finish_index(ActiveRequest& request, std::int32_t index, const EngineEvent& event);
  void cancel_request(ActiveRequest& request);
  void fail(Sequence& sequence, const std::exception_ptr& error, const std::string& doing = {});
  bool emit(ActiveRequest& request, EngineEvent event);
  void leave_queue(ActiveRequest& request);
  void purge();  // removes finished requests

  Gpt& model_;
  EngineOptions options_;
  PagedKvCache cache_;
  Scheduler scheduler_;
  std::unique_ptr<StepRunner> runner_;  // null: one step after the other
  std::deque<UnderWay> under_way_;      // oldest first
  // Requests that are done while steps with draws of theirs are under way, and the number of the last of those steps.
  std::deque<std::pair<std::int64_t, std::unique_ptr<ActiveRequest>>> leaving_;
  std::int64_t steps_read_ = 0;
  std::vector<RequestId> done_;
  EngineStats totals_;
  TokenRate prompt_rate_, completion_rate_;
  std::atomic<std::int64_t> dequeued_ = 0, dequeued_tokens_ = 0;
};

}  // namespace nanochat
