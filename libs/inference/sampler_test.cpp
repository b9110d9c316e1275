#include "inference/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "core/errors.h"
#include "core/random.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<double> softmax(const std::vector<float>& logits, double temperature = 1.0) {
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp(static_cast<double>(logit) / temperature));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= total;
  return p;
}

std::vector<std::int64_t> histogram(const SamplingOptions& options, const std::vector<float>& logits, int draws,
                                    const std::vector<std::int32_t>& seen = {}) {
  Sampler sampler(options);
  std::vector<std::int64_t> counts(logits.size());
  for (int i = 0; i < draws; ++i) {
    const DrawContext context{.seen = seen, .uniform = uniform_at(options.seed, 0, static_cast<std::uint64_t>(i))};
    ++counts[static_cast<std::size_t>(sampler.sample(logits, context).id)];
  }
  return counts;
}

// Pearson's statistic against the exact probabilities; tokens of probability 0 must not occur.
double chi_square(const std::vector<std::int64_t>& counts, const std::vector<double>& probabilities) {
  const auto draws = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  double sum = 0.0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = draws * probabilities[i], found = static_cast<double>(counts[i]);
    if (probabilities[i] == 0.0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
    } else {
      sum += (found - expected) * (found - expected) / expected;
    }
  }
  return sum;
}

// Probabilities restricted to `kept` and scaled back to 1.
std::vector<double> restricted(std::vector<double> p, const std::set<std::size_t>& kept) {
  double total = 0.0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (!kept.contains(i)) p[i] = 0.0;
    total += p[i];
  }
  for (double& x : p) x /= total;
  return p;
}

constexpr int kDraws = 20000;
// 99.99 % of the chi-square distribution with 7 degrees of freedom lies below; the seed is fixed, so no lottery.
constexpr double kChiSquareBound = 29.9;

const std::vector<float> kLogits = {1.0F, 0.0F, 2.0F, -1.0F, 1.5F, 0.5F, -2.0F, 1.75F};

TEST(Sampler, DrawsTheSoftmaxAtAnyTemperature) {
  for (const double temperature : {0.5, 1.0, 2.0}) {
    const auto counts = histogram({.temperature = temperature}, kLogits, kDraws);
    EXPECT_LT(chi_square(counts, softmax(kLogits, temperature)), kChiSquareBound) << temperature;
  }
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  Sampler sampler({.temperature = 0.0});
  EXPECT_EQ(sampler.sample(std::vector<float>{0.0F, 3.0F, 1.0F, 3.0F}, {}).id, 1);
  EXPECT_EQ(sampler.sample(std::vector<float>(1000, 0.5F), {}).id, 0);
  EXPECT_EQ(sampler.sample(std::vector<float>{-kInfinity, -5.0F}, {}).id, 1);
}

TEST(Sampler, TinyTemperaturesAreGreedyWithoutOverflow) {
  for (const double temperature : {1e-6, 1e-30, 1e-300}) {
    const auto counts = histogram({.temperature = temperature}, kLogits, 100);
    EXPECT_EQ(counts[2], 100) << temperature;
  }
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  const auto counts = histogram({.temperature = 1.0, .top_k = 3}, kLogits, kDraws);
  EXPECT_LT(chi_square(counts, restricted(softmax(kLogits), {2, 4, 7})), kChiSquareBound);
  EXPECT_EQ(histogram({.temperature = 5.0, .top_k = 1}, kLogits, 200)[2], 200);
}

TEST(Sampler, TopKCutsTiesByLowestId) {
  const auto counts = histogram({.temperature = 1.0, .top_k = 2}, std::vector<float>(6, 1.0F), 300);
  EXPECT_EQ(counts[0] + counts[1], 300);
  EXPECT_GT(counts[0], 100);
  EXPECT_GT(counts[1], 100);
}

TEST(Sampler, TopKBeyondTheVocabularyKeepsAll) {
  const auto all = histogram({.temperature = 1.0}, kLogits, 500);
  EXPECT_EQ(histogram({.temperature = 1.0, .top_k = 8}, kLogits, 500), all);
  EXPECT_EQ(histogram({.temperature = 1.0, .top_k = 99}, kLogits, 500), all);
}

TEST(Sampler, TopPKeepsTheSmallestSetOfThatProbability) {
  // Probabilities 0.1, 0.2, 0.3, 0.4: 0.6 needs the last two, which have 0.7; one alone has 0.4.
  const std::vector<float> logits = {std::log(0.1F), std::log(0.2F), std::log(0.3F), std::log(0.4F)};
  const auto counts = histogram({.temperature = 1.0, .top_p = 0.6}, logits, kDraws);
  EXPECT_LT(chi_square(counts, {0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0}), kChiSquareBound);
  EXPECT_EQ(histogram({.temperature = 1.0, .top_p = 0.39}, logits, 200)[3], 200);
  EXPECT_EQ(histogram({.temperature = 1.0, .top_p = 1e-9}, logits, 200)[3], 200);
}

TEST(Sampler, TopPCountsWithinTopK) {
  // Of 0.4, 0.3, 0.2 (rescaled 4/9, 3/9, 2/9) the first two have 7/9, which is not yet 0.8.
  const std::vector<float> logits = {std::log(0.1F), std::log(0.2F), std::log(0.3F), std::log(0.4F)};
  const auto kept = [&](double top_p) {
    const auto counts = histogram({.temperature = 1.0, .top_k = 3, .top_p = top_p}, logits, 2000);
    return std::count_if(counts.begin(), counts.end(), [](std::int64_t n) { return n > 0; });
  };
  EXPECT_EQ(kept(0.75), 2);
  EXPECT_EQ(kept(0.8), 3);
}

TEST(Sampler, MinPDropsTokensFarBelowTheMostLikely) {
  const std::vector<float> logits = {std::log(0.05F), std::log(0.16F), std::log(0.29F), std::log(0.5F)};
  const auto counts = histogram({.temperature = 1.0, .min_p = 0.3}, logits, kDraws);
  EXPECT_LT(chi_square(counts, restricted({0.05, 0.16, 0.29, 0.5}, {1, 2, 3})), kChiSquareBound);
  EXPECT_EQ(histogram({.temperature = 1.0, .min_p = 1.0}, logits, 100)[3], 100);
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegativeOnce) {
  const std::vector<float> logits = {2.0F, -1.0F, 1.2F, -1.5F};
  const std::vector<float> penalised = {1.0F, -2.0F, 1.2F, -1.5F};
  const auto counts = histogram({.temperature = 1.0, .repetition_penalty = 2.0}, logits, kDraws, {0, 1, 0, 0, -1, 4});
  EXPECT_LT(chi_square(counts, softmax(penalised)), kChiSquareBound);
  Sampler greedy({.temperature = 0.0, .repetition_penalty = 2.0});
  EXPECT_EQ(greedy.sample(logits, {}).id, 0);
  const std::vector<std::int32_t> seen = {0};
  EXPECT_EQ(greedy.sample(logits, {.seen = seen}).id, 2);
}

TEST(Sampler, LogprobIsThatOfTheUnmodifiedDistribution) {
  const auto p = softmax(kLogits);
  Sampler sampler({.temperature = 0.3, .top_k = 4, .top_p = 0.9, .min_p = 0.05, .repetition_penalty = 1.5});
  const std::vector<std::int32_t> seen = {2};
  for (int i = 0; i < 50; ++i) {
    const SampledToken token = sampler.sample(kLogits, {.seen = seen, .uniform = i / 50.0});
    EXPECT_NEAR(token.logprob, std::log(p[static_cast<std::size_t>(token.id)]), 1e-6);
  }
}

TEST(Sampler, ALogprobNobodyWantsChangesNoToken) {
  Rng rng(11);
  for (const double temperature : {0.0, 0.9}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<float> logits(300);
      for (float& logit : logits) logit = static_cast<float>(8.0 * rng.uniform());
      SamplingOptions options;
      options.temperature = temperature;
      DrawContext context;
      context.uniform = rng.uniform();
      const SampledToken with = Sampler(options).sample(logits, context);
      EXPECT_DOUBLE_EQ(with.logprob, Sampler::logprob(logits, with.id));
      context.logprob = false;
      const SampledToken without = Sampler(options).sample(logits, context);
      EXPECT_EQ(without.id, with.id);
      EXPECT_EQ(without.logprob, 0.0);
      options.logit_bias = {{7, 0.0}};  // the way of those whose scores are not the logits
      EXPECT_EQ(Sampler(options).sample(logits, context).id, with.id);
    }
  }
}

TEST(Sampler, MinusInfinityIsNeverDrawn) {
  std::vector<float> logits(64, -kInfinity);
  logits[13] = -80.0F;
  const auto counts = histogram({.temperature = 100.0}, logits, 300);
  EXPECT_EQ(counts[13], 300);
}

TEST(Sampler, ServesALargeVocabulary) {
  Rng rng(3);
  std::vector<float> logits(131072);
  for (float& logit : logits) logit = static_cast<float>(rng.normal());
  logits[100000] = 40.0F;
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 1.0}, SamplingOptions{.temperature = 1.0, .top_k = 50},
        SamplingOptions{.temperature = 1.0, .top_p = 0.95}, SamplingOptions{.temperature = 1.0, .min_p = 0.1}}) {
    for (const double uniform : {0.001, 0.5, 0.999})
      EXPECT_EQ(Sampler(options).sample(logits, {.uniform = uniform}).id, 100000);
  }
}

TEST(Sampler, RefusesLogitsThatAreNotNumbers) {
  Sampler sampler({.temperature = 1.0});
  const auto sample = [&](std::vector<float> logits) { return [&sampler, logits] { sampler.sample(logits, {}); }; };
  EXPECT_THAT(sample({0.0F, kNan, 1.0F}), ThrowsMessage<NumericalError>(HasSubstr("the logit of token 1 is nan")));
  EXPECT_THAT(sample({0.0F, 1.0F, kInfinity}), ThrowsMessage<NumericalError>(HasSubstr("token 2 is inf")));
  EXPECT_THAT(sample({-kInfinity, -kInfinity}), ThrowsMessage<NumericalError>(HasSubstr("none of the 2 logits")));
  EXPECT_THAT(sample({}), ThrowsMessage<NumericalError>(HasSubstr("none of the 0 logits")));
}

TEST(Sampler, FrequencyAndPresenceCountGeneratedTokensOnly) {
  const std::vector<float> logits = {1.0F, 0.9F, 0.0F};
  const std::vector<std::int32_t> generated = {0, 0};
  Sampler frequency({.temperature = 0.0, .frequency_penalty = 0.04});
  EXPECT_EQ(frequency.sample(logits, {.generated = generated}).id, 0);  // 1 - 2 * 0.04
  Sampler more({.temperature = 0.0, .frequency_penalty = 0.06});
  EXPECT_EQ(more.sample(logits, {.generated = generated}).id, 1);
  EXPECT_EQ(more.sample(logits, {.seen = generated}).id, 0);
  Sampler presence({.temperature = 0.0, .presence_penalty = 0.11});
  EXPECT_EQ(presence.sample(logits, {.generated = generated}).id, 1);
  EXPECT_NEAR(presence.sample(logits, {.generated = generated}).logprob, Sampler::logprob(logits, 1), 1e-12);
}

TEST(Sampler, BiasAllowedAndForbiddenTokens) {
  const std::vector<float> logits = {3.0F, 2.0F, 1.0F};
  EXPECT_EQ(Sampler({.temperature = 0.0, .logit_bias = {{2, 2.5}, {77, 1.0}}}).sample(logits, {}).id, 2);
  Sampler greedy({.temperature = 0.0});
  const std::vector<std::uint64_t> allowed = {0b110};
  const std::vector<std::int32_t> forbidden = {1};
  EXPECT_EQ(greedy.sample(logits, {.allowed = allowed}).id, 1);
  EXPECT_EQ(greedy.sample(logits, {.allowed = allowed, .forbidden = forbidden}).id, 2);
  const std::vector<std::uint64_t> nothing = {0};
  EXPECT_THROW(greedy.sample(logits, {.allowed = nothing}), NumericalError);
  Sampler drawing({.temperature = 1.0});
  for (int i = 0; i < 100; ++i) EXPECT_NE(drawing.sample(logits, {.allowed = allowed, .uniform = i / 100.0}).id, 0);
}

TEST(Sampler, TheDrawIsTheInverseOfTheCumulativeDistribution) {
  std::vector<float> logits(5000);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7) * 0.3F;
  Sampler sampler({.temperature = 1.0});
  double below = 0.0;
  for (std::int32_t id = 0; id < 5000; ++id) {
    const double probability = std::exp(Sampler::logprob(logits, id));
    EXPECT_EQ(sampler.sample(logits, {.uniform = below + probability / 2}).id, id);
    below += probability;
  }
  EXPECT_EQ(sampler.sample(logits, {.uniform = std::nextafter(1.0, 0.0)}).id, 4999);
}

TEST(Sampler, MostLikelyAreInOrder) {
  const std::vector<float> logits = {1.0F, 3.0F, 3.0F, 2.0F};
  const auto top = Sampler::most_likely(logits, 3);
  ASSERT_EQ(top.size(), 3U);
  EXPECT_EQ(top[0].id, 1);
  EXPECT_EQ(top[1].id, 2);
  EXPECT_EQ(top[2].id, 3);
  EXPECT_NEAR(top[2].logprob, Sampler::logprob(logits, 3), 1e-12);
  EXPECT_EQ(Sampler::most_likely(logits, 9).size(), 4U);
}

TEST(UniformAt, IsUniformAndTellsItsArgumentsApart) {
  double sum = 0.0;
  std::vector<int> tenths(10);
  constexpr int kCalls = 20000;
  for (std::uint64_t i = 0; i < kCalls; ++i) {
    const double u = uniform_at(i % 100, i / 1000, i);
    ASSERT_TRUE(u >= 0.0 && u < 1.0);
    sum += u;
    ++tenths[static_cast<std::size_t>(u * 10)];
  }
  EXPECT_NEAR(sum / kCalls, 0.5, 0.01);
  for (const int count : tenths) EXPECT_NEAR(count, kCalls / 10, 200);
  EXPECT_EQ(uniform_at(1, 2, 3), uniform_at(1, 2, 3));
  EXPECT_NE(uniform_at(1, 2, 3), uniform_at(1, 3, 2));
  EXPECT_NE(uniform_at(1, 2, 3), uniform_at(2, 1, 3));
}

TEST(SamplingOptions, NamesTheOptionThatIsOutOfRange) {
  const auto validate = [](const SamplingOptions& options) { return [options] { options.validate(); }; };
  EXPECT_NO_THROW(SamplingOptions().validate());
  EXPECT_THAT(validate({.temperature = -0.1}),
              ThrowsMessage<ConfigError>(HasSubstr("temperature: found -0.1, expected 0 (greedy) or a positive number")));
  EXPECT_THAT(validate({.temperature = kNan}),
              ThrowsMessage<ConfigError>(HasSubstr("temperature: found nan, expected 0 (greedy) or a positive number")));
  EXPECT_THAT(validate({.top_k = -1}),
              ThrowsMessage<ConfigError>(HasSubstr("top_k: found -1, expected 0 (all) or a positive number")));
  EXPECT_THAT(validate({.top_p = 0.0}),
              ThrowsMessage<ConfigError>(HasSubstr("top_p: found 0, expected a number above 0 and at most 1")));
  EXPECT_THAT(validate({.top_p = 1.1}),
              ThrowsMessage<ConfigError>(HasSubstr("top_p: found 1.1, expected a number above 0 and at most 1")));
  EXPECT_THAT(validate({.min_p = -0.5}), ThrowsMessage<ConfigError>(HasSubstr("min_p: found -0.5, expected 0 to 1")));
  EXPECT_THAT(validate({.repetition_penalty = 0.0}),
              ThrowsMessage<ConfigError>(HasSubstr("repetition_penalty: found 0, expected 0.01 to 100 (1: none)")));
  EXPECT_THROW(Sampler({.top_p = 2.0}), ConfigError);
}

}  // namespace
}  // namespace nanochat
