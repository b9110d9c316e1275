#include "inference/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "ops/cpu/kernels.h"

namespace nanochat {
namespace {

// The largest logit; throws when one is NaN or +Inf, or when all are -Inf.
float checked_maximum(std::span<const float> logits) {
  float maximum = -std::numeric_limits<float>::infinity();
  bool nan = logits.empty();
  for (const float logit : logits) {
    nan |= std::isnan(logit);
    maximum = std::max(maximum, logit);
  }
  if (!nan && std::isfinite(maximum)) return maximum;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      throw NumericalError(fmt::format("the logit of token {} is {}", i, logits[i]));
    }
  }
  throw NumericalError(fmt::format("none of the {} logits is finite", logits.size()));
}

}  // namespace

void SamplingOptions::validate() const {
  const auto require = [](bool right, const char* name, auto value, const char* expected) {
    if (!right) throw ConfigError(fmt::format("{} is {}, but must be {}", name, value, expected));
  };
  require(temperature >= 0.0 && std::isfinite(temperature), "temperature", temperature, "0 (greedy) or positive");
  require(top_k >= 0, "top_k", top_k, "0 (all) or positive");
  require(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0 and at most 1");
  require(min_p >= 0.0 && min_p <= 1.0, "min_p", min_p, "between 0 and 1");
  require(repetition_penalty >= 0.01 && repetition_penalty <= 100.0, "repetition_penalty", repetition_penalty,
          "between 0.01 and 100 (1: none)");
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), rng_(options.seed) { options_.validate(); }

SampledToken Sampler::sample(std::span<const float> logits, std::span<const std::int32_t> seen) {
  const auto n = static_cast<std::int64_t>(logits.size());
  const float largest = checked_maximum(logits);
  const double log_sum =
      static_cast<double>(largest) + std::log(ops::cpu::exponentials()(logits.data(), nullptr, n, largest, 1.0F));

  scores_.assign(logits.begin(), logits.end());
  if (options_.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(options_.repetition_penalty);
    for (const std::int32_t id : seen) {
      if (id < 0 || id >= n) continue;
      // From the logit, not the score: a token seen twice is penalised once.
      const float logit = logits[static_cast<std::size_t>(id)];
      scores_[static_cast<std::size_t>(id)] = logit > 0.0F ? logit / penalty : logit * penalty;
    }
  }
  const auto most_likely = std::max_element(scores_.begin(), scores_.end());  // the first among equals
  const auto chosen =
      options_.temperature == 0.0 ? static_cast<std::size_t>(most_likely - scores_.begin()) : draw();
  return {static_cast<std::int32_t>(chosen), static_cast<double>(logits[chosen]) - log_sum};
}

bool Sampler::more_likely(std::int32_t a, std::int32_t b) const {
  const float score_a = scores_[static_cast<std::size_t>(a)], score_b = scores_[static_cast<std::size_t>(b)];
  return score_a != score_b ? score_a > score_b : a < b;
}

double Sampler::total_weight() const {
  double total = 0.0;
  for (const std::int32_t id : order_) total += static_cast<double>(scores_[static_cast<std::size_t>(id)]);
  return total;
}

void Sampler::keep_top_p() {
  // A heap gives up the most likely tokens one by one: no sort of the whole vocabulary.
  const auto less_likely = [this](std::int32_t a, std::int32_t b) { return more_likely(b, a); };
  const double wanted = options_.top_p * total_weight();
  std::make_heap(order_.begin(), order_.end(), less_likely);
  auto rest = order_.end();
  double mass = 0.0;
  while (rest != order_.begin() && mass < wanted) {
    std::pop_heap(order_.begin(), rest, less_likely);
    mass += static_cast<double>(scores_[static_cast<std::size_t>(*--rest)]);
  }
  order_.erase(order_.begin(), rest);
}

std::size_t Sampler::draw() {
  order_.resize(scores_.size());
  std::iota(order_.begin(), order_.end(), 0);
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < order_.size()) {
    std::nth_element(order_.begin(), order_.begin() + (options_.top_k - 1), order_.end(),
                     [this](std::int32_t a, std::int32_t b) { return more_likely(a, b); });
    order_.resize(static_cast<std::size_t>(options_.top_k));
  }
  // From here on scores_ are weights: probabilities but for a common factor, the largest 1. A temperature near zero
  // leaves only the maximum: its exponent stays 0, all others run to -Inf.
  const float maximum = *std::max_element(scores_.begin(), scores_.end());
  const double inverse = std::min(1.0 / options_.temperature, static_cast<double>(std::numeric_limits<float>::max()));
  ops::cpu::exponentials()(scores_.data(), scores_.data(), static_cast<std::int64_t>(scores_.size()), maximum,
                           static_cast<float>(inverse));
  if (options_.top_p < 1.0) keep_top_p();
  if (options_.min_p > 0.0) {
    std::erase_if(order_, [this](std::int32_t id) {
      return static_cast<double>(scores_[static_cast<std::size_t>(id)]) < options_.min_p;  // the largest weight is 1
    });
  }

  const double mark = rng_.uniform() * total_weight();
  double sum = 0.0;
  std::size_t chosen = 0;
  for (const std::int32_t id : order_) {
    const float weight = scores_[static_cast<std::size_t>(id)];
    if (weight <= 0.0F) continue;
    chosen = static_cast<std::size_t>(id);  // stands if rounding leaves `mark` just above the last sum
    sum += static_cast<double>(weight);
    if (sum > mark) break;
  }
  return chosen;
}

}  // namespace nanochat
