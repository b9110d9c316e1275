#pragma once
// Sampling of the next token: options and random numbers. ops/row_sampler.h does the sampling.

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "ops/row_sampler.h"

namespace nanochat {

struct SamplingOptions {
  double temperature = 0.8;         // 0: greedy (the lowest id among equals)
  std::int64_t top_k = 0;           // keep the k most likely; 0: all
  double top_p = 1.0;               // keep the smallest set with this probability (Holtzman et al. 2020)
  double min_p = 0.0;               // drop tokens below min_p times the most likely one (Nguyen et al. 2024)
  // Logits of earlier tokens are divided (positive) or multiplied (negative) by this, 0.01 to 100 (Keskar et al. 2019).
  double repetition_penalty = 1.0;
  // Subtracted from the logit of a generated token, -2 to 2: for each occurrence, and once (OpenAI's API).
  double frequency_penalty = 0.0;
  double presence_penalty = 0.0;
  std::vector<std::pair<std::int32_t, double>> logit_bias = {};  // added to the logits of these tokens, -100 to 100
  std::uint64_t seed = 42;
  void validate() const;            // throws ConfigError
  // The sampler's options for a row, without the context of the draw. The bias refers to these options.
  ops::SampleRow row() const;
};

using ops::SampledToken;

// The random number in [0, 1) of one draw: a hash (SplitMix64's finalizer,
// Stafford 2011, over a counter) of the seed, the index of the sequence and the
// position of the token. There is no state: a draw does not depend on other draws.
double uniform_at(std::uint64_t seed, std::uint64_t sequence, std::uint64_t position);

// The context of the draw of one token, in addition to the options.
struct DrawContext {
  std::span<const std::int32_t> seen = {};       // prompt and generated tokens, for the repetition penalty
  std::span<const std::int32_t> generated = {};  // generated tokens, for the frequency and presence penalty
  std::span<const std::uint64_t> allowed = {};   // a bit for every token; empty: all are allowed
  std::span<const std::int32_t> forbidden = {};  // excluded, whether allowed or not
  double uniform = 0.0;
  bool logprob = true;                           // false: SampledToken::logprob stays 0, which saves a pass
};

// Order: penalties and bias, disallowed tokens, temperature, top-k, top-p, min-p, draw. Use one
// Sampler per sequence or thread, for its scratch memory. The result depends only on the arguments.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);
  // logits: (vocab). Throws NumericalError with a token whose logit is NaN
  // or +Inf, or if no token is allowed. A token with -Inf is never drawn.
  SampledToken sample(std::span<const float> logits, const DrawContext& context);

  // The `count` most likely tokens of the unmodified distribution, most likely first; among equals the lowest id.
  static std::vector<SampledToken> most_likely(std::span<const float> logits, std::int64_t count);
  static double logprob(std::span<const float> logits, std::int32_t id);

 private:
  SamplingOptions options_;
  ops::RowSampler rows_;
};

}  // namespace nanochat
