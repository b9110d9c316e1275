#include "ops/row_sampler.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/errors.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/row_products.h"

namespace nanochat::ops {
namespace {

constexpr std::size_t kBlock = 1024;  // weights that are summed together
constexpr float kNever = -std::numeric_limits<float>::infinity();

float checked_maximum(std::span<const float> logits) {
  const float maximum = cpu::maximum()(logits.data(), static_cast<std::int64_t>(logits.size()));
  if (std::isfinite(maximum)) return maximum;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      throw NumericalError(message_not_finite(static_cast<std::int64_t>(i), logits[i]));
    }
  }
  throw NumericalError(message_none_finite(static_cast<std::int64_t>(logits.size())));
}

double log_sum_exp(std::span<const float> logits, float largest) {
  const auto n = static_cast<std::int64_t>(logits.size());
  return static_cast<double>(largest) + std::log(cpu::exponentials()(logits.data(), nullptr, n, largest, 1.0F));
}

bool scores_are_logits(const SampleRow& row) {
  return row.repetition_penalty == 1.0 && row.frequency_penalty == 0.0 && row.presence_penalty == 0.0 &&
         row.logit_bias.empty() && row.allowed.empty() && row.forbidden.empty();
}

std::size_t first_of(std::span<const float> values, float value) {
  return static_cast<std::size_t>(std::find(values.begin(), values.end(), value) - values.begin());
}

// Eight sums side by side, so that they need not wait for each other.
double sum_of(std::span<const float> values) {
  double sums[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= values.size(); i += 8) {
    for (std::size_t j = 0; j < 8; ++j) sums[j] += static_cast<double>(values[i + j]);
  }
  for (; i < values.size(); ++i) sums[0] += static_cast<double>(values[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace

std::string message_not_finite(std::int64_t id, float logit) { return fmt::format("the logit of token {} is {}", id, logit); }
std::string message_none_finite(std::int64_t vocab) { return fmt::format("none of the {} logits is finite", vocab); }
std::string message_none_allowed(std::int64_t vocab) { return fmt::format("none of the {} tokens may be drawn", vocab); }

void RowSampler::score(std::span<const float> logits, const SampleRow& row) {
  const auto n = static_cast<std::int64_t>(logits.size());
  const auto known = [&](std::int32_t id) { return id >= 0 && id < n; };
  scores_.assign(logits.begin(), logits.end());
  if (row.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(row.repetition_penalty);
    for (const std::int32_t id : row.seen) {
      if (!known(id)) continue;
      // From the logit, not the score: a token seen twice is penalised once.
      const float logit = logits[static_cast<std::size_t>(id)];
      scores_[static_cast<std::size_t>(id)] = logit > 0.0F ? logit / penalty : logit * penalty;
    }
  }
  if (row.frequency_penalty != 0.0 || row.presence_penalty != 0.0) {
    order_.assign(row.generated.begin(), row.generated.end());
    std::sort(order_.begin(), order_.end());
    for (auto run = order_.begin(); run != order_.end();) {
      const auto end = std::upper_bound(run, order_.end(), *run);
      if (known(*run)) {
        const double penalty = row.presence_penalty + row.frequency_penalty * static_cast<double>(end - run);
        scores_[static_cast<std::size_t>(*run)] -= static_cast<float>(penalty);
      }
      run = end;
    }
  }
  for (const auto& [id, bias] : row.logit_bias) {
    if (known(id)) scores_[static_cast<std::size_t>(id)] += static_cast<float>(bias);
  }
  if (!row.allowed.empty()) {
    for (std::size_t i = 0; i < scores_.size(); ++i) {
      if ((row.allowed[i / 64] >> (i % 64) & 1U) == 0) scores_[i] = kNever;
    }
  }
  for (const std::int32_t id : row.forbidden) {
    if (known(id)) scores_[static_cast<std::size_t>(id)] = kNever;
  }
}

std::size_t RowSampler::choose(std::span<const float> logits, float maximum, const SampleRow& row) {
  const bool greedy = row.temperature == 0.0;
  if (greedy && scores_are_logits(row)) return first_of(logits, maximum);
  score(logits, row);
  const float best = cpu::maximum()(scores_.data(), static_cast<std::int64_t>(scores_.size()));
  if (best == kNever) throw NumericalError(message_none_allowed(static_cast<std::int64_t>(logits.size())));
  return greedy ? first_of(scores_, best) : draw(row, best);
}

SampledToken RowSampler::sample(std::span<const float> logits, const SampleRow& row) {
  const float maximum = checked_maximum(logits);
  const std::size_t chosen = choose(logits, maximum, row);
  const double logprob = row.logprob ? static_cast<double>(logits[chosen]) - log_sum_exp(logits, maximum) : 0.0;
  return {static_cast<std::int32_t>(chosen), logprob};
}

std::vector<SampledToken> RowSampler::most_likely(std::span<const float> logits, std::int64_t count) {
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
  const auto kept = ids.begin() + std::min<std::ptrdiff_t>(count, static_cast<std::ptrdiff_t>(ids.size()));
  std::partial_sort(ids.begin(), kept, ids.end(),
                    [&](std::int32_t a, std::int32_t b) { return logit(a) != logit(b) ? logit(a) > logit(b) : a < b; });
  const double log_sum = log_sum_exp(logits, checked_maximum(logits));
  std::vector<SampledToken> tokens;
  for (auto id = ids.begin(); id != kept; ++id) tokens.push_back({*id, static_cast<double>(logit(*id)) - log_sum});
  return tokens;
}

double RowSampler::logprob(std::span<const float> logits, std::int32_t id) {
  return static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum_exp(logits, checked_maximum(logits));
}

bool RowSampler::more_likely(std::int32_t a, std::int32_t b) const {
  const float score_a = scores_[static_cast<std::size_t>(a)], score_b = scores_[static_cast<std::size_t>(b)];
  return score_a != score_b ? score_a > score_b : a < b;
}

// Takes the weights of all tokens away that top-k and top-p do not keep.
void RowSampler::keep_most_likely(const SampleRow& row) {
  const auto weight = [&](std::int32_t id) { return static_cast<double>(scores_[static_cast<std::size_t>(id)]); };
  order_.resize(scores_.size());
  std::iota(order_.begin(), order_.end(), 0);
  std::int32_t last = -1;  // the least likely token that is kept
  const auto top_k = static_cast<std::size_t>(row.top_k);
  if (top_k > 0 && top_k < order_.size()) {
    std::nth_element(order_.begin(), order_.begin() + (row.top_k - 1), order_.end(),
                     [this](std::int32_t a, std::int32_t b) { return more_likely(a, b); });
    order_.resize(top_k);
    last = order_.back();
  }
  if (row.top_p < 1.0) {
    // A heap gives up the most likely tokens one by one: no sort of the whole vocabulary.
    const auto less_likely = [this](std::int32_t a, std::int32_t b) { return more_likely(b, a); };
    double wanted = 0.0;
    for (const std::int32_t id : order_) wanted += weight(id);
    wanted *= row.top_p;
    std::make_heap(order_.begin(), order_.end(), less_likely);
    auto rest = order_.end();
    double mass = 0.0;
    while (rest != order_.begin() && mass < wanted) {
      std::pop_heap(order_.begin(), rest, less_likely);
      last = *--rest;
      mass += weight(last);
    }
  }
  if (last < 0) return;
  const float least = scores_[static_cast<std::size_t>(last)];
  for (std::size_t i = 0; i < scores_.size(); ++i) {
    const bool kept = scores_[i] > least || (scores_[i] == least && i <= static_cast<std::size_t>(last));
    scores_[i] = kept ? scores_[i] : 0.0F;
  }
}

std::size_t RowSampler::draw(const SampleRow& row, float best) {
  // From here on scores_ are weights: probabilities but for a common factor, the largest 1. A temperature near zero
  // leaves only the maximum: its exponent stays 0, all others run to -Inf.
  using Float = std::numeric_limits<float>;
  const double inverse = std::clamp(1.0 / row.temperature, double{Float::min()}, double{Float::max()});
  cpu::exponentials()(scores_.data(), scores_.data(), static_cast<std::int64_t>(scores_.size()), best,
                      static_cast<float>(inverse));
  keep_most_likely(row);
  if (row.min_p > 0.0) {  // the largest weight is 1
    for (float& weight : scores_) weight = static_cast<double>(weight) >= row.min_p ? weight : 0.0F;
  }
  block_weights_.clear();
  for (std::size_t begin = 0; begin < scores_.size(); begin += kBlock) {
    block_weights_.push_back(sum_of(std::span(scores_).subspan(begin, std::min(kBlock, scores_.size() - begin))));
  }
  // Whole blocks are skipped by their sums.
  const double mark = row.uniform * std::accumulate(block_weights_.begin(), block_weights_.end(), 0.0);
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

}  // namespace nanochat::ops
