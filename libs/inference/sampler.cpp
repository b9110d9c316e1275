#include "inference/sampler.h"

#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"

namespace nanochat {

void SamplingOptions::validate() const {
  const auto require = [](bool right, const char* name, auto value, const char* expected) {
    if (!right) throw ConfigError(fmt::format("{}: found {}, expected {}", name, value, expected));
  };
  require(temperature >= 0.0 && std::isfinite(temperature), "temperature", temperature, "0 (greedy) or a positive number");
  require(top_k >= 0, "top_k", top_k, "0 (all) or a positive number");
  require(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "a number above 0 and at most 1");
  require(min_p >= 0.0 && min_p <= 1.0, "min_p", min_p, "0 to 1");
  require(repetition_penalty >= 0.01 && repetition_penalty <= 100.0, "repetition_penalty", repetition_penalty,
          "0.01 to 100 (1: none)");
  require(std::abs(frequency_penalty) <= 2.0, "frequency_penalty", frequency_penalty, "-2 to 2");
  require(std::abs(presence_penalty) <= 2.0, "presence_penalty", presence_penalty, "-2 to 2");
  for (const auto& [id, bias] : logit_bias) {
    require(id >= 0, "logit_bias", id, "an id of the vocabulary");
    require(std::abs(bias) <= 100.0, "logit_bias", bias, "-100 to 100");
  }
}

ops::SampleRow SamplingOptions::row() const {
  ops::SampleRow row;
  row.temperature = temperature;
  row.top_k = top_k;
  row.top_p = top_p;
  row.min_p = min_p;
  row.repetition_penalty = repetition_penalty;
  row.frequency_penalty = frequency_penalty;
  row.presence_penalty = presence_penalty;
  row.logit_bias = logit_bias;
  return row;
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

SampledToken Sampler::sample(std::span<const float> logits, const DrawContext& context) {
  ops::SampleRow row = options_.row();
  row.seen = context.seen;
  row.generated = context.generated;
  row.allowed = context.allowed;
  row.forbidden = context.forbidden;
  row.uniform = context.uniform;
  row.logprob = context.logprob;
  return rows_.sample(logits, row);
}

std::vector<SampledToken> Sampler::most_likely(std::span<const float> logits, std::int64_t count) {
  return ops::RowSampler::most_likely(logits, count);
}

double Sampler::logprob(std::span<const float> logits, std::int32_t id) { return ops::RowSampler::logprob(logits, id); }

}  // namespace nanochat
