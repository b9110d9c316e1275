#pragma once
// The batching engine for serving. (Chat, evaluation and reinforcement learning use the same core without
// a thread: generator.h.) One thread owns the model, the paged KV cache and the scheduler; other threads
// send it messages. Each step has a budget of tokens: first one for each decoding sequence, the rest for
// prompts, in chunks and in order of arrival (chunked prefill: Agrawal et al. 2023). Requests reuse cached
// prefixes (PagedAttention: Kwon et al. 2023). When blocks run out, the newest sequence is preempted.
//
// Sampling is batch-invariant: the random numbers of a token depend only on the seed, the index of its sequence and its
// position. On a CPU an answer is the same, bit for bit, whatever else is in the batch, with or without the prefix cache,
// whether its prompt is computed in one chunk or in several, and with or without speculative decoding. On a GPU the same
// holds in float32, and in bfloat16 with EngineOptions::batch_invariant; otherwise up to the rounding of products and attention.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "inference/inference_backend.h"
#include "inference/speculative.h"

namespace nanochat {

class Gpt;

struct EngineOptions {
  std::int64_t block_size = 16;  // positions in a block of the KV cache
  std::int64_t kv_blocks = 0;  // 0: one context for each of max_running, or what a quarter of free memory holds
  std::int64_t max_batch_tokens = 0;  // tokens through the model in a step; 0: default_batch_tokens() of the device
  std::int64_t max_running = 64;  // sequences that hold blocks at a time; an n > 1 counts n
  std::int64_t max_queued = 256;  // requests that wait beyond those; more are refused
  std::int64_t max_queued_tokens = 0;  // tokens of their prompts together; 0: no limit
  bool prefix_cache = true;
  bool warm_up = true;  // allocate the cache and read all weights once before ready()
  // Start a step before the host has read the tokens of the step before. The device passes these tokens on to the new step.
  // Answers do not change. Unset: true on a GPU.
  std::optional<bool> overlap;
  bool graphs = true;  // on a GPU: record decoding steps as CUDA graphs
  Speculative speculative = Speculative::kNone;  // draft tokens, and keep those that are drawn
  bool batch_invariant = false;  // on a GPU in bfloat16: attention that is batch-invariant, which slows prompts down
  // Of a model in bfloat16: keep keys and values in 8 bits (ops/paged_attention.h). That is for devices with
  // ops::has_fp8_cache(); others compute the same numbers slowly.
  bool fp8_cache = false;
  std::function<std::unique_ptr<TokenTool>()> make_tool;  // for requests with `tools`; empty: those are refused
  void validate() const;  // throws ConfigError
};

// Default of max_batch_tokens. On a GPU, a step with so many tokens runs at full rate and does not delay streams for long.
std::int64_t default_batch_tokens(bool gpu);

// What the owner of one or several engines does with them.
class ServingEngine : public InferenceBackend {
 public:
  virtual void start() = 0;  // warms up and starts the threads; call once. Requests may be submitted before
  // Refuses new requests, waits until the others are done, and returns true. Returns false if `limit` passes before that.
  virtual bool drain(std::optional<std::chrono::milliseconds> limit = std::nullopt) = 0;
  virtual void stop() = 0;  // ends all requests with kCancelled, returns when the threads have ended
};

class Engine final : public ServingEngine {
 public:
  // Only the engine's thread uses the model while the engine lives. Throws ConfigError for
  // options out of range or a cache that is too small for one context, and OutOfMemoryError.
  Engine(std::unique_ptr<Gpt> model, const EngineOptions& options);
  ~Engine() override;  // stop()
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void start() override;
  bool drain(std::optional<std::chrono::milliseconds> limit = std::nullopt) override;
  void stop() override;

  // Everything below is thread-safe; inference_backend.h says what it does.
  Submission submit(EngineRequest request) override;
  void check(const EngineRequest& request) const;  // throws what submit() would throw
  void cancel(RequestId id) override;
  // Ends one sequence of a request, which has had a token, with kCancelled at the next step.
  void cancel(RequestId id, std::int32_t sequence);
  void invalidate(std::function<bool(std::span<const std::int32_t>)> matches,
                  std::function<void(std::int64_t)> done = {}) override;
  void release_prefix(std::vector<std::int32_t> tokens) override;
  EngineStats stats() const override;
  bool ready() const override;
  std::int64_t context_length() const override;
  std::int64_t vocab_size() const override;
  std::int64_t max_choices() const override;

  // Runs `task`, which must not throw, on the engine's thread between two steps, with the model.
  // If it changes weights, it must also call refresh_compute(), and invalidate() must follow.
  void at_step(std::function<void(Gpt&)> task);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
