#pragma once
// Samples the next token from one row of logits: penalties and bias, disallowed tokens, temperature,
// top-k, top-p, min-p, draw, in this order. On a CPU; ops/sample.h samples many rows, also on GPUs.
//
// The result is defined exactly, so that CPU and GPU give the same tokens. Weights are float32 numbers. Comparing
// them determines the tokens that are kept; among equals, the lower id comes first. The draw adds the weights of
// the kept tokens in the order of their ids, in float64, until the sum is above `uniform` times their total.

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace nanochat::ops {

// A token and the logarithm of its probability (nats) in the unmodified distribution: temperature 1, no cut.
struct SampledToken {
  std::int32_t id = 0;
  double logprob = 0.0;
};

struct SampleRow {
  std::int64_t row = 0;             // row of the logits; several draws may use one row
  double temperature = 1.0;         // 0: greedy, the most likely token
  std::int64_t top_k = 0;           // keep the k most likely; 0: all
  double top_p = 1.0;               // of those, keep the smallest set with this share of their probability
  double min_p = 0.0;               // of those, drop tokens below min_p times the most likely one
  double repetition_penalty = 1.0;  // divides (positive) or multiplies the logits of `seen`, once each
  double frequency_penalty = 0.0;   // subtracted for each occurrence in `generated`
  double presence_penalty = 0.0;    // subtracted once for a token of `generated`
  std::span<const std::pair<std::int32_t, double>> logit_bias = {};  // added
  std::span<const std::int32_t> seen = {}, generated = {};
  // On a GPU: this element of DeviceSamples' `inputs`, which the host need not know, is one more of both. -1: none.
  std::int64_t last_input = -1;
  std::span<const std::uint64_t> allowed = {};    // a bit for each token of the vocabulary; empty: all may be drawn
  std::span<const std::int32_t> forbidden = {};   // not to be drawn, allowed or not
  double uniform = 0.0;             // the random number of this draw, in [0, 1)
  bool logprob = true;              // false: SampledToken::logprob stays 0, which saves a pass
  std::int64_t top_logprobs = 0;    // number of alternatives, at most kMostTopLogprobs
};
inline constexpr std::int64_t kMostTopLogprobs = 128;

// Keeps memory for reuse; not thread-safe.
class RowSampler {
 public:
  // Throws NumericalError with a token whose logit is NaN or +Inf, or if no token is
  // allowed. A token with -Inf is never drawn. Options must be in range (SamplingOptions).
  SampledToken sample(std::span<const float> logits, const SampleRow& row);
  // The `count` most likely tokens of the unmodified distribution, most likely first; among equals the lowest id.
  static std::vector<SampledToken> most_likely(std::span<const float> logits, std::int64_t count);
  static double logprob(std::span<const float> logits, std::int32_t id);

 private:
  void score(std::span<const float> logits, const SampleRow& row);  // fills scores_
  std::size_t choose(std::span<const float> logits, float maximum, const SampleRow& row);
  std::size_t draw(const SampleRow& row, float best);               // from scores_, which become weights
  void keep_most_likely(const SampleRow& row);
  bool more_likely(std::int32_t a, std::int32_t b) const;

  std::vector<float> scores_;          // (vocab), modified logits, then weights
  std::vector<std::int32_t> order_;    // scratch: ids
  std::vector<double> block_weights_;  // sums of the weights of neighbouring tokens
};

// The messages of errors when there is no token.
std::string message_not_finite(std::int64_t id, float logit);
std::string message_none_finite(std::int64_t vocab);
std::string message_none_allowed(std::int64_t vocab);

}  // namespace nanochat::ops
