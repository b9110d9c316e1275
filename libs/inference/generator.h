#pragma once
// The engine without a thread of its own: prompts in, answers out. For a model that somebody else owns and, between two
// calls, may train: samples, evaluation, reinforcement learning, the command line. For requests that come and go: engine.h.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "inference/finish_reason.h"
#include "inference/sampler.h"

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
  const Tokenizer* tools = nullptr;       // run the calculator where the model calls it (calculator_tool.h); null: do not
  void validate() const;                  // throws ConfigError
};

struct Generation {
  std::vector<std::int32_t> ids;     // generated tokens, prompt and stop token not included
  std::vector<double> logprobs;      // one each; 0 for a forced one
  std::vector<std::uint8_t> forced;  // one each; 1: put in by a tool, not drawn, so nothing to train on
  FinishReason reason = FinishReason::kLength;
  double prefill_seconds = 0.0;      // from the call until the first token was drawn (TTFT)
  double decode_seconds = 0.0;       // from there to the last token
};

// Called with each token as it is drawn; return false to stop.
using TokenCallback = std::function<bool(std::size_t row, std::int32_t id)>;

// Continues every prompt (token ids, BOS included by the caller) independently and as batch-invariantly as the engine does;
// row r draws from stream r of the seed (uniform_at()), so that row 0 is what the server answers with that seed. Prompts may
// differ in length. max_tokens is cut to what the context (model.config().sequence_len) leaves; forced tokens count. An
// interrupt (core/interrupt.h) ends all sequences with kCancelled after the current token.
//
// Throws ConfigError for options out of range, DataError naming the prompt when it is empty, holds an id outside the
// vocabulary or fills the context (with both lengths), NumericalError naming the token when a logit is not finite.
std::vector<Generation> generate(Gpt& model, const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerationOptions& options, const TokenCallback& on_token = {});

}  // namespace nanochat
