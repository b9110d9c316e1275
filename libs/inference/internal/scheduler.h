#pragma once
// For the engine only: selects the tokens of the next step and assigns
// the blocks that they need. Does not use the model. Not thread-safe.
//
// Order of a step: decodes; then the rest of the budget for prompts (and tokens forced by tools) in order
// of arrival; then preempted sequences; then new requests, if there are blocks for their whole prompt. A
// step always makes progress: the oldest sequence can take every block, and the cache holds one context.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "inference/engine.h"
#include "inference/internal/block_pool.h"
#include "inference/internal/sequence.h"

namespace nanochat {

struct ScheduledChunk {
  Sequence* sequence = nullptr;
  std::int64_t tokens = 0;        // from sequence->computed on
  std::int64_t drafted = 0;       // tokens of sequence->draft that follow

  std::int64_t rows() const { return tokens + drafted; }  // of the model's pass
};

class Scheduler {
 public:
  Scheduler(const EngineOptions& options, std::int64_t blocks);

  void add(std::unique_ptr<ActiveRequest> request);         // to the end of the queue
  // The next batch; empty if there is nothing to do. Chunks are in the order given above.
  std::vector<ScheduledChunk> schedule();
  // Takes blocks for `wanted` drafted tokens after a chunk, as far as blocks are free: nothing is preempted for a draft. Returns
  // the number of tokens that have room.
  std::int64_t reserve_draft(const ScheduledChunk& chunk, std::int64_t wanted);
  // Call when the model has processed so many further tokens of a sequence: publishes the blocks that they filled. Drafted
  // tokens count once they have been drawn; what follows is written over.
  void computed(Sequence& sequence, std::int64_t tokens);
  // Creates sequences 1 .. n-1 of a finished prompt, sharing its full blocks; `copy` copies a block that is not full.
  void fork(Sequence& first, const std::function<void(std::int32_t, std::int32_t)>& copy);
  void finish(Sequence& sequence);  // frees its blocks
  // Removes a request whose sequences have all finished, or that waits.
  std::unique_ptr<ActiveRequest> remove(RequestId id);
  ActiveRequest* find(RequestId id);
  std::vector<RequestId> requests() const;  // in order of arrival
  std::int64_t invalidate(const std::function<bool(std::span<const std::int32_t>)>& matches);
  void release_prefix(std::span<const std::int32_t> tokens) { pool_.release_prefix(tokens); }

  bool idle() const { return requests_.empty(); }
  void count(EngineStats& stats) const;  // fills what the scheduler knows

 private:
  bool reserve(Sequence& sequence, std::int64_t tokens);  // blocks up to computed + tokens; preempts; false: preempted itself
  void publish(Sequence& sequence);  // to the prefix cache, the blocks that it has filled
  void release(Sequence& sequence);
  void preempt(Sequence& sequence);
  bool admit(ActiveRequest& request);
  bool take_prefix(Sequence& sequence);  // blocks for all its tokens; false: too few
  void add_chunk(Sequence& sequence, std::int64_t tokens);

  std::int64_t block_size_, max_batch_tokens_, max_running_;
  bool prefix_cache_;
  BlockPool pool_;
  std::vector<std::unique_ptr<ActiveRequest>> requests_;  // all, in order of arrival
  std::deque<ActiveRequest*> waiting_;
  std::int64_t waiting_tokens_ = 0;  // of their prompts
  std::deque<Sequence*> preempted_;
  std::vector<Sequence*> running_;  // in order of arrival
  std::vector<ScheduledChunk> batch_;
  std::int64_t epoch_ = 0, hits_ = 0, misses_ = 0, preemptions_ = 0;
};

}  // namespace nanochat
