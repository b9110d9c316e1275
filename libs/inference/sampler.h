#pragma once
// The next token from logits.

#include <cstdint>
#include <span>
#include <vector>

#include "core/random.h"

namespace nanochat {

struct SamplingOptions {
  double temperature = 0.8;         // 0: greedy (the lowest id among equals)
  std::int64_t top_k = 0;           // keep the k most likely; 0: all
  double top_p = 1.0;               // keep the smallest set with this probability (Holtzman et al. 2020)
  double min_p = 0.0;               // drop tokens below min_p times the most likely one (Nguyen et al. 2024)
  // Logits of tokens already seen are divided (positive) or multiplied by this, 0.01 to 100 (Keskar et al. 2019).
  double repetition_penalty = 1.0;
  std::uint64_t seed = 42;
  void validate() const;            // throws ConfigError
};

struct SampledToken {
  std::int32_t id = 0;
  double logprob = 0.0;  // of the unmodified distribution (temperature 1, nothing cut), nats
};

// Order: repetition penalty, temperature, top-k, top-p, min-p, draw. One Sampler per sequence; its stream of random
// numbers depends on the seed alone.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);
  // logits: (vocab). `seen`: tokens that the repetition penalty applies to.
  // Throws NumericalError naming a token whose logit is NaN or +Inf; -Inf is a token that is never drawn.
  SampledToken sample(std::span<const float> logits, std::span<const std::int32_t> seen);

 private:
  std::size_t draw();  // from scores_, which become weights
  void keep_top_p();
  bool more_likely(std::int32_t a, std::int32_t b) const;
  double total_weight() const;  // of order_

  SamplingOptions options_;
  Rng rng_;
  std::vector<float> scores_;         // (vocab), modified logits, then weights
  std::vector<std::int32_t> order_;   // candidates
};

}  // namespace nanochat
