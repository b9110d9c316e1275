#pragma once
// Generation with a KV cache: prompts in, tokens out as they come.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "inference/sampler.h"

namespace nanochat {

class Gpt;

struct GenerationOptions {
  std::int64_t max_tokens = 256;
  SamplingOptions sampling;
  std::vector<std::int32_t> stop_tokens;  // generation ends when one is drawn; it is not part of the result
  bool ignore_eos = false;                // draw on past stop tokens
};

enum class FinishReason { kStop, kLength, kCancelled };

struct Generation {
  std::vector<std::int32_t> ids;     // generated tokens, prompt and stop token not included
  std::vector<double> logprobs;      // one each
  FinishReason reason = FinishReason::kLength;
  double prefill_seconds = 0.0;      // until the first token was drawn
  double decode_seconds = 0.0;
};

// Called with each token as it is drawn; return false to stop.
using TokenCallback = std::function<bool(std::size_t row, std::int32_t id)>;

// Continues every prompt (token ids, BOS included by the caller) independently: results do not depend on which other
// prompts are in the batch beyond rounding; row r samples with seed derived from (seed, r). Prompts may differ in
// length. A prompt that is empty or leaves no room in the context (model.config().sequence_len) throws DataError with
// both lengths; max_tokens is cut to what fits.
std::vector<Generation> generate(Gpt& model, const std::vector<std::vector<std::int32_t>>& prompts,
                                 const GenerationOptions& options, const TokenCallback& on_token = {});

}  // namespace nanochat
