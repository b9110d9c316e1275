#pragma once
// The batching engine for serving. (Chat, evaluation and reinforcement learning use the same core without
// a thread: generator.h.) One thread owns the model, the paged KV cache and the scheduler; other threads
// send it messages. Each step has a budget of tokens: first one for each decoding sequence, the rest for
// prompts, in chunks and in order of arrival (chunked prefill: Agrawal et al. 2023). Requests reuse cached
// prefixes (PagedAttention: Kwon et al. 2023). When blocks run out, the newest sequence is preempted.
//
// Results are batch-invariant. The random numbers of a token depend only on the seed, the index of its sequence and its
// position. On a CPU an answer is the same, bit for bit, whatever else is in the batch, with or without the prefix cache,
// and whether its prompt is computed in one chunk or in several. On a GPU it is the same up to the rounding of matrix
// products.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "inference/inference_backend.h"

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

class Engine final : public InferenceBackend {
 public:
  // Only the engine's thread uses the model while the engine lives. Throws ConfigError for
  // options out of range or a cache that is too small for one context, and OutOfMemoryError.
  Engine(std::unique_ptr<Gpt> model, const EngineOptions& options);
  ~Engine() override;  // stop()
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void start();  // warms up and starts the thread; call once. Requests may be submitted before
  void drain();  // refuses new requests, returns when the others are done
  void stop();   // ends all requests with kCancelled, returns when the thread has ended

  // Everything below is thread-safe; inference_backend.h says what it does.
  Submission submit(EngineRequest request) override;
  void cancel(RequestId id) override;
  // Ends one sequence of a request, which has had a token, with kCancelled at the next step.
  void cancel(RequestId id, std::int32_t sequence);
  void invalidate(std::function<bool(std::span<const std::int32_t>)> matches,
                  std::function<void(std::int64_t)> done = {}) override;
  EngineStats stats() const override;
  bool ready() const override;
  std::int64_t context_length() const override;
  std::int64_t vocab_size() const override;

  // Runs `task`, which must not throw, on the engine's thread between two steps, with the model.
  // If it changes weights, it must also call refresh_compute(), and invalidate() must follow.
  void at_step(std::function<void(Gpt&)> task);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
