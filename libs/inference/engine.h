#pragma once
// The batching engine for serving. (Chat, evaluation and reinforcement learning use the same core without
// a thread: generator.h.) One thread owns the model, the paged KV cache and the scheduler; other threads
// send it messages. Each step has a budget of tokens: first one for each decoding sequence, the rest for
// prompts, in chunks and in order of arrival (chunked prefill: Agrawal et al. 2023). Requests reuse cached
// prefixes (PagedAttention: Kwon et al. 2023). When blocks run out, the newest sequence is preempted.
//
// Results are batch-invariant: a sampled token depends only on the seed, the index of its sequence and its
// position. On a CPU, an answer is equal bit for bit alone and in a batch, with and without the prefix cache,
// with its prompt in one piece or in chunks. On a GPU, it is equal up to the rounding of matrix products.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "inference/engine_request.h"

namespace nanochat {

class Gpt;

struct EngineOptions {
  std::int64_t block_size = 16;         // positions in a block of the KV cache
  std::int64_t kv_blocks = 0;           // 0: one context for each of max_running, or what a quarter of free memory holds
  std::int64_t max_batch_tokens = 256;  // maximum number of tokens in a forward pass
  std::int64_t max_running = 64;        // maximum number of running sequences; a request with n > 1 counts n
  std::int64_t max_queued = 256;        // maximum number of waiting requests; further ones are refused
  std::int64_t max_queued_tokens = 0;   // maximum number of prompt tokens of all waiting requests; 0: no limit
  bool prefix_cache = true;
  bool warm_up = true;                  // allocate the cache and read the weights once before ready()
  std::function<std::unique_ptr<TokenTool>()> make_tool;  // for requests with `tools`; empty: those are refused
  void validate() const;                // throws ConfigError
};

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
  // Only the engine's thread uses the model while the engine lives. Throws ConfigError for
  // options out of range or a cache that is too small for one context, and OutOfMemoryError.
  Engine(std::unique_ptr<Gpt> model, const EngineOptions& options);
  ~Engine();  // stop()
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void start();  // warms up and starts the thread; call once. Requests may be submitted before
  void drain();  // refuses new requests, returns when the others are done
  void stop();   // ends all requests with kCancelled, returns when the thread has ended

  // All functions below are thread-safe. Before anything is queued, throws DataError for a prompt that is empty,
  // fills the context (with both lengths) or has an id outside the vocabulary, and ConfigError for other fields
  // out of range or a max_tokens below the constraint's shortest answer. A refused request gets no event.
  Submission submit(EngineRequest request);
  // Ends a request, or one of its sequences that has had a token, with
  // kCancelled at the next step, in any state. Ignores unknown ids.
  void cancel(RequestId id);
  void cancel(RequestId id, std::int32_t sequence);

  // Runs `task`, which must not throw, on the engine's thread between two steps, with the model.
  // If it changes weights, it must also call refresh_compute(), and invalidate() must follow.
  void at_step(std::function<void(Gpt&)> task);
  // Drops cached blocks for which `matches` returns true, and all blocks after them. `matches` gets all tokens from the
  // start of a prompt to the end of a block. Empty: drops all. `done` is called on the engine's thread with their number.
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
