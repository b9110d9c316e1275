#pragma once
// The interface of an engine for code that sends requests. Serving uses it instead of Engine, so that its tests can use an
// engine with chosen answers. The owner of an engine starts, drains and stops it (engine.h).

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "inference/engine_request.h"

namespace nanochat {

enum class Refusal { kNone, kQueueFull, kDraining, kStopped };

struct Submission {
  RequestId id = 0;
  Refusal refusal = Refusal::kNone;
  explicit operator bool() const { return refusal == Refusal::kNone; }
};

struct EngineStats {
  bool ready = false;
  bool draining = false;
  std::int64_t running = 0, queued = 0, queued_tokens = 0;       // sequences, requests, tokens of those requests
  std::int64_t kv_blocks_used = 0, kv_blocks_cached = 0, kv_blocks_total = 0;  // cached: held only by the prefix cache
  std::int64_t cache_hits = 0, cache_misses = 0;                 // full blocks of prompts, found or computed
  std::int64_t requests = 0, finished = 0, cancelled = 0, failed = 0, refused = 0, preemptions = 0;  // since the start
  std::int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, steps = 0;               // since the start
  std::int64_t drafted_tokens = 0, accepted_tokens = 0;  // of speculative decoding since the start: passed, and of these kept
  double prompt_tokens_per_second = 0.0, completion_tokens_per_second = 0.0;  // over the last ten seconds
  std::vector<EngineStats> replicas;  // of each engine, if there are several (replicas.h)
  EngineStats& operator+=(const EngineStats& other);  // adds its counts and rates, and appends its replicas
  void keep_counters();  // of an engine that has ended: clears what is not counted since the start
};

// Thread-safe.
class InferenceBackend {
 public:
  virtual ~InferenceBackend() = default;

  // Before it queues anything, throws DataError for a prompt that is empty, fills the context (with both lengths) or has an id
  // outside the vocabulary, and ConfigError for other fields that are out of range or a max_tokens below the constraint's
  // shortest answer. A refused request gets no events.
  virtual Submission submit(EngineRequest request) = 0;
  // Ends a request with kCancelled at the next step. Does nothing for an unknown id.
  virtual void cancel(RequestId id) = 0;
  // Removes the cached blocks for which `matches` returns true, and all blocks that follow them. `matches` gets all tokens from
  // the start of a prompt to the end of a block; if it is empty, every block is removed. `done` gets the number of removed
  // blocks on the engine's thread.
  virtual void invalidate(std::function<bool(std::span<const std::int32_t>)> matches,
                          std::function<void(std::int64_t)> done) = 0;

  // Removes the cached blocks that only sequences beginning with these tokens use: those from the last one back to the first that
  // another sequence shares. Blocks that a running sequence holds stay.
  virtual void release_prefix(std::vector<std::int32_t> tokens) = 0;

  virtual EngineStats stats() const = 0;  // as of the last step
  virtual bool ready() const = 0;
  virtual std::int64_t context_length() const = 0;
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int64_t max_choices() const = 0;  // the highest n of a request
};

}  // namespace nanochat
