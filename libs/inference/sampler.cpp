#include "inference/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/row_products.h"

namespace nanochat {
namespace {

// The largest logit; throws when one is NaN or +Inf, or when all are -Inf.
float checked_maximum(std::span<const float> logits) {
  const float maximum = ops::cpu::maximum()(logits.data(), static_cast<std::int64_t>(logits.size()));
  if (std::isfinite(maximum)) return maximum;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      throw NumericalError(fmt::format("the logit of token {} is {}", i, logits[i]));
    }
  }
  throw NumericalError(fmt::format("none of the {} logits is finite", logits.size()));
}

double log_sum_exp(std::span<const float> logits, float largest) {
  const auto n = static_cast<std::int64_t>(logits.size());
  return static_cast<double>(largest) + std::log(ops::cpu::exponentials()(logits.data(), nullptr, n, largest, 1.0F));
}

constexpr std::size_t kBlock = 1024;  // weights that are summed together

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
  require(std::abs(frequency_penalty) <= 2.0, "frequency_penalty", frequency_penalty, "between -2 and 2");
  require(std::abs(presence_penalty) <= 2.0, "presence_penalty", presence_penalty, "between -2 and 2");
  for (const auto& [id, bias] : logit_bias) {
    require(id >= 0, "a token of logit_bias", id, "an id of the vocabulary");
    require(std::abs(bias) <= 100.0, "a logit_bias", bias, "between -100 and 100");
  }
}

double uniform_at(std::uint64_t seed, std::uint64_t sequence, std::uint64_t position) {
  const auto mix = [](std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
  };
  return static_cast<double>(mix(mix(mix(seed) ^ sequence) ^ position) >> 11) * 0x1.0p-53;
}

Sampler::Sampler(const SamplingOptions& options) : options_(options) { options_.validate(); }

void Sampler::score(std::span<const float> logits, const DrawContext& context) {
  const auto n = static_cast<std::int64_t>(logits.size());
  const auto known = [&](std::int32_t id) { return id >= 0 && id < n; };
  scores_.assign(logits.begin(), logits.end());
  if (options_.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(options_.repetition_penalty);
    for (const std::int32_t id : context.seen) {
      if (!known(id)) continue;
      // From the logit, not the score: a token seen twice is penalised once.
      const float logit = logits[static_cast<std::size_t>(id)];
      scores_[static_cast<std::size_t>(id)] = logit > 0.0F ? logit / penalty : logit * penalty;
    }
  }
  if (options_.frequency_penalty != 0.0 || options_.presence_penalty != 0.0) {
    order_.assign(context.generated.begin(), context.generated.end());
    std::sort(order_.begin(), order_.end());
    for (auto run = order_.begin(); run != order_.end();) {
      const auto end = std::upper_bound(run, order_.end(), *run);
      if (known(*run)) {
        const double penalty = options_.presence_penalty + options_.frequency_penalty * static_cast<double>(end - run);
        scores_[static_cast<std::size_t>(*run)] -= static_cast<float>(penalty);
      }
      run = end;
    }
  }
  for (const auto& [id, bias] : options_.logit_bias) {
    if (known(id)) scores_[static_cast<std::size_t>(id)] += static_cast<float>(bias);
  }
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  if (!context.allowed.empty()) {
    for (std::size_t i = 0; i < scores_.size(); ++i) {
      if ((context.allowed[i / 64] >> (i % 64) & 1U) == 0) scores_[i] = kNever;
    }
  }
  for (const std::int32_t id : context.forbidden) {
    if (known(id)) scores_[static_cast<std::size_t>(id)] = kNever;
  }
}

bool Sampler::scores_are_logits(const DrawContext& context) const {
  return options_.repetition_penalty == 1.0 && options_.frequency_penalty == 0.0 && options_.presence_penalty == 0.0 &&
         options_.logit_bias.empty() && context.allowed.empty() && context.forbidden.empty();
}

std::size_t Sampler::choose(std::span<const float> logits, float maximum, const DrawContext& context) {
  const bool greedy = options_.temperature == 0.0;
  const auto first = [](std::span<const float> values, float value) {
    return static_cast<std::size_t>(std::find(values.begin(), values.end(), value) - values.begin());
  };
  if (greedy && scores_are_logits(context)) return first(logits, maximum);
  score(logits, context);
  const float best = ops::cpu::maximum()(scores_.data(), static_cast<std::int64_t>(scores_.size()));
  if (best == -std::numeric_limits<float>::infinity()) {
    throw NumericalError(fmt::format("none of the {} tokens may be drawn", logits.size()));
  }
  return greedy ? first(scores_, best) : draw(context.uniform, best);
}

SampledToken Sampler::sample(std::span<const float> logits, const DrawContext& context) {
  const float maximum = checked_maximum(logits);
  const std::size_t chosen = choose(logits, maximum, context);
  const double logprob = context.logprob ? static_cast<double>(logits[chosen]) - log_sum_exp(logits, maximum) : 0.0;
  return {static_cast<std::int32_t>(chosen), logprob};
}

std::vector<SampledToken> Sampler::most_likely(std::span<const float> logits, std::int64_t count) {
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
  const auto kept = ids.begin() + std::min<std::ptrdiff_t>(count, static_cast<std::ptrdiff_t>(ids.size()));
  std::partial_sort(ids.begin(), kept, ids.end(), [&](std::int32_t a, std::int32_t b) {
    return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
  });
  const double log_sum = log_sum_exp(logits, checked_maximum(logits));
  std::vector<SampledToken> tokens;
  for (auto id = ids.begin(); id != kept; ++id) tokens.push_back({*id, static_cast<double>(logit(*id)) - log_sum});
  return tokens;
}

double Sampler::logprob(std::span<const float> logits, std::int32_t id) {
  return static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum_exp(logits, checked_maximum(logits));
}

bool Sampler::more_likely(std::int32_t a, std::int32_t b) const {
  const float score_a = scores_[static_cast<std::size_t>(a)], score_b = scores_[static_cast<std::size_t>(b)];
  return score_a != score_b ? score_a > score_b : a < b;
}

double Sampler::total_weight() const {
  double total = 0.0;
  for (const std::int32_t id : order_) total += weight(id);
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
    mass += weight(*--rest);
  }
  order_.erase(order_.begin(), rest);
}

std::size_t Sampler::draw(double uniform, float maximum) {
  // From here on scores_ are weights: probabilities but for a common factor, the largest 1. A temperature near zero
  // leaves only the maximum: its exponent stays 0, all others run to -Inf.
  using Float = std::numeric_limits<float>;
  const double inverse = std::clamp(1.0 / options_.temperature, double{Float::min()}, double{Float::max()});
  block_weights_.clear();
  for (std::size_t begin = 0; begin < scores_.size(); begin += kBlock) {
    const std::size_t size = std::min(kBlock, scores_.size() - begin);
    block_weights_.push_back(ops::cpu::exponentials()(scores_.data() + begin, scores_.data() + begin,
                                                      static_cast<std::int64_t>(size), maximum,
                                                      static_cast<float>(inverse)));
  }
  const auto top_k = static_cast<std::size_t>(options_.top_k);
  const bool all = (top_k == 0 || top_k >= scores_.size()) && options_.top_p == 1.0 && options_.min_p == 0.0;
  if (all) return draw_from_all(uniform);

  order_.resize(scores_.size());
  std::iota(order_.begin(), order_.end(), 0);
  if (top_k > 0 && top_k < order_.size()) {
    std::nth_element(order_.begin(), order_.begin() + (options_.top_k - 1), order_.end(),
                     [this](std::int32_t a, std::int32_t b) { return more_likely(a, b); });
    order_.resize(top_k);
  }
  if (options_.top_p < 1.0) keep_top_p();
  if (options_.min_p > 0.0) {
    std::erase_if(order_, [this](std::int32_t id) { return weight(id) < options_.min_p; });  // the largest weight is 1
  }
  const double mark = uniform * total_weight();
  double sum = 0.0;
  std::int32_t chosen = 0;
  for (const std::int32_t id : order_) {
    if (weight(id) <= 0.0) continue;
    chosen = id;  // stands if rounding leaves `mark` just above the last sum
    sum += weight(id);
    if (sum > mark) break;
  }
  return static_cast<std::size_t>(chosen);
}

// Skips whole blocks by their sums.
std::size_t Sampler::draw_from_all(double uniform) const {
  const double mark = uniform * std::accumulate(block_weights_.begin(), block_weights_.end(), 0.0);
  double sum = 0.0;
  std::size_t block = 0;
  while (block + 1 < block_weights_.size() && sum + block_weights_[block] <= mark) sum += block_weights_[block++];
  std::size_t chosen = scores_.size();
  for (std::size_t i = block * kBlock; i < scores_.size(); ++i) {
    if (scores_[i] <= 0.0F) continue;
    chosen = i;
    sum += static_cast<double>(scores_[i]);
    if (sum > mark) break;
  }
  if (chosen < scores_.size()) return chosen;
  // Rounding put the mark behind everything: the last token with a weight.
  const auto last = std::find_if(scores_.rbegin(), scores_.rend(), [](float weight) { return weight > 0.0F; });
  return static_cast<std::size_t>(scores_.rend() - last) - 1;
}

}  // namespace nanochat
