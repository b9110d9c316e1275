#pragma once
// The batching engine behind serving, chat and reinforcement learning. One thread owns the model, the paged KV cache and
// the scheduler; everybody else talks to it by messages. Each step spends a budget of tokens: sequences that decode
// first, the rest on prompts, in chunks and in order of arrival, so that a long prompt never stalls running streams
// (chunked prefill: Agrawal et al. 2023). Prompts that begin alike share blocks of the cache (PagedAttention: Kwon et
// al. 2023); when blocks run out, the sequence that came last waits and is computed again.
//
// Results are batch-invariant. The random numbers of a token depend only on the seed, the index of its sequence and its
// position. On a CPU an answer is the same, bit for bit, whatever else is in the batch, with or without the prefix cache,
// and whether its prompt is computed in one chunk or in several. On a GPU it is the same up to the rounding of matrix
// products.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "inference/engine_request.h"

namespace nanochat {

class Gpt;

struct EngineOptions {
  std::int64_t block_size = 16;         // positions a block of the KV cache holds
  std::int64_t kv_blocks = 0;           // 0: one context for each of max_running, or what a quarter of free memory holds
  std::int64_t max_batch_tokens = 0;    // tokens through the model in a step; 0: default_batch_tokens() of the device
  std::int64_t max_running = 64;        // sequences that hold blocks at a time; an n > 1 counts n
  std::int64_t max_queued = 256;        // requests that wait beyond those; more are refused
  std::int64_t max_queued_tokens = 0;   // tokens of their prompts together; 0: no limit
  bool prefix_cache = true;
  bool warm_up = true;                  // take the cache's memory and pass over the weights once before ready()
  // Start a step before the tokens of the step before it are read: they go back into the model on the device. Answers are the
  // same. Unset: on a GPU.
  std::optional<bool> overlap;
  bool graphs = true;                   // on a GPU: record decoding steps and start each of them as one launch
  bool batch_invariant = false;         // on a GPU in bfloat16: attention that is batch-invariant, which slows prompts down
  std::function<std::unique_ptr<TokenTool>()> make_tool;  // for requests with `tools`; empty: those are refused
  void validate() const;                // throws ConfigError
};

// A step on a GPU is long enough for its rate with so many tokens, and short enough for streams that wait for it.
std::int64_t default_batch_tokens(bool gpu);

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
  std::int64_t kv_blocks_used = 0, kv_blocks_cached = 0, kv_blocks_total = 0;  // cached: held by the prefix cache alone
  std::int64_t cache_hits = 0, cache_misses = 0;                 // full blocks of prompts, found or computed
  std::int64_t requests = 0, finished = 0, cancelled = 0, failed = 0, refused = 0, preemptions = 0;  // since the start
  std::int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, steps = 0;               // since the start
  double prompt_tokens_per_second = 0.0, completion_tokens_per_second = 0.0;  // over the last ten seconds
};

class Engine {
 public:
  // The model is used on the engine's thread alone while the engine lives. Throws ConfigError for options out of range
  // or a cache that does not hold one context, OutOfMemoryError.
  Engine(std::unique_ptr<Gpt> model, const EngineOptions& options);
  ~Engine();  // stop()
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void start();  // warms up, then the thread; once. Requests may be submitted before
  void drain();  // refuses new requests, returns when those it has are done
  void stop();   // ends what is left with kCancelled, returns when the thread has ended

  // Everything below is thread-safe. Throws, before anything is queued, DataError for a prompt that is empty, fills the
  // context (with both lengths) or holds an id outside the vocabulary, and ConfigError for other fields out of range or a
  // max_tokens below the constraint's shortest answer. A refused request gets no event.
  Submission submit(EngineRequest request);
  // Ends a request, or one of its sequences that has had a token, with kCancelled at the next step, wherever it is;
  // unknown ids do nothing.
  void cancel(RequestId id);
  void cancel(RequestId id, std::int32_t sequence);

  // Runs `task`, which must not throw, on the engine's thread between two steps, with the model. When it changes weights, it
  // also calls refresh_compute(), and invalidate() must follow.
  void at_step(std::function<void(Gpt&)> task);
  // Forgets cached blocks of which `matches` says so, and all that follow them; it is given all tokens from the start of a
  // prompt to the end of a block. Empty: every block. `done`, on the engine's thread, gets the number forgotten.
  void invalidate(std::function<bool(std::span<const std::int32_t>)> matches, std::function<void(std::int64_t)> done = {});

  EngineStats stats() const;   // as of the last step
  bool ready() const;
  std::int64_t context_length() const;
  std::int64_t vocab_size() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
