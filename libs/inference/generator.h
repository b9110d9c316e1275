#pragma once
// The engine without its own thread: prompts in, answers out. The caller owns the model and may train it between
// two calls: samples, evaluation, reinforcement learning, command line. For concurrent requests, see engine.h.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "inference/finish_reason.h"
#include "inference/sampler.h"
#include "inference/speculative.h"

namespace nanochat {

class Gpt;
class Tokenizer;

struct GenerationOptions {
  std::int64_t max_tokens = 256;
  SamplingOptions sampling;
  std::vector<std::int32_t> stop_tokens;  // generation ends when one is drawn; it is not part of the result
  bool ignore_eos = false;                // draw on past stop tokens
  std::int64_t max_running = 64;            // sequences in the cache at a time; others wait
  bool batch_invariant = false;           // EngineOptions::batch_invariant
  bool fp8_cache = false;                 // EngineOptions::fp8_cache
  Speculative speculative = Speculative::kNone;
  const Tokenizer* tools = nullptr;       // run the calculator where the model calls it (calculator_tool.h); null: do not
  void validate() const;                  // throws ConfigError
};

struct Generation {
  std::vector<std::int32_t> ids;     // generated tokens, without prompt and stop token
  std::vector<double> logprobs;      // one each; 0 for a forced one
  std::vector<std::uint8_t> forced;  // one per token; 1: forced by a tool and not sampled, so not trained
  FinishReason reason = FinishReason::kLength;
  double prefill_seconds = 0.0;      // from the call to the first token (TTFT)
  double decode_seconds = 0.0;       // from the first token to the last
};

// Called with each token when it is sampled; return false to stop.
using TokenCallback = std::function<bool(std::size_t row, std::int32_t id)>;

// Continues every prompt (token ids, BOS included by the caller) independently and as batch-invariantly as the engine does;
// row r draws from stream r of the seed (uniform_at()), so that row 0 is what the server answers with that seed. Prompts may
// differ in length. max_tokens is cut to what the context (model.config().sequence_len) leaves; forced tokens count. An
// interrupt (core/interrupt.h) ends all sequences with kCancelled after the current token.
//
// Throws ConfigError for options out of range; DataError with the prompt if it is empty, has an id outside the
// vocabulary or fills the context (with both lengths); NumericalError with the token if a logit is not finite.
std::vector<Generation> generate(Gpt& model, const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerationOptions& options, const TokenCallback& on_token = {});

}  // namespace nanochat
