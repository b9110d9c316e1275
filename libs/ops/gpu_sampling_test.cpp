// Draws of tokens on a GPU, against those on a CPU, and recorded graphs. Skipped with a message where no GPU is.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/random.h"
#include "ops/cross_entropy.h"
#include "ops/device.h"
#include "ops/device_graph.h"
#include "ops/linear.h"
#include "ops/relu_squared.h"
#include "ops/sample.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::random_tensor;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

at::Tensor on_gpu(const at::Tensor& x) { return x.to(at::kCUDA); }

class GpuSampling : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_devices() == 0) GTEST_SKIP() << (cuda_built() ? "no GPU on this machine" : "a build without CUDA");
  }
};

// Rows with options of all kinds, and the lists that they refer to.
struct RandomRows {
  std::vector<SampleRow> rows;
  std::vector<std::vector<std::int32_t>> seen, generated, forbidden;
  std::vector<std::vector<std::pair<std::int32_t, double>>> bias;
  std::vector<std::vector<std::uint64_t>> allowed;

  RandomRows(Rng& rng, std::size_t count, std::int64_t logits, std::int64_t vocab)
      : rows(count), seen(count), generated(count), forbidden(count), bias(count), allowed(count) {
    const auto pick = [&](std::int64_t n) { return static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(n))); };
    const auto token = [&] { return static_cast<std::int32_t>(pick(vocab)); };
    for (std::size_t i = 0; i < count; ++i) {
      SampleRow& row = rows[i];
      row.row = pick(logits);
      row.temperature = pick(4) == 0 ? 0.0 : pick(8) == 0 ? 1e-30 : 0.2 + 2.0 * rng.uniform();
      if (pick(2) == 0) row.top_k = pick(4) == 0 ? 1 + pick(vocab + 3) : 1 + pick(60);
      if (pick(2) == 0) row.top_p = std::max(1e-9, rng.uniform());
      if (pick(3) == 0) row.min_p = 0.3 * rng.uniform();
      if (pick(3) == 0) row.repetition_penalty = 0.5 + 1.5 * rng.uniform();
      if (pick(3) == 0) row.frequency_penalty = 2.0 * rng.uniform() - 0.5;
      if (pick(3) == 0) row.presence_penalty = 2.0 * rng.uniform() - 0.5;
      for (std::int64_t n = pick(300); n > 0; --n) {
        seen[i].push_back(pick(20) == 0 ? -1 : token());
        if (pick(2) == 0) generated[i].push_back(seen[i].back());
        if (pick(3) == 0) generated[i].push_back(seen[i].back());
      }
      if (pick(3) == 0) {
        for (std::int64_t n = pick(40); n > 0; --n)
          bias[i].push_back({pick(4) == 0 ? 3 : token(), 20.0 * rng.uniform() - 10.0});
      }
      if (pick(4) == 0) {
        for (std::int64_t n = pick(8); n > 0; --n) forbidden[i].push_back(token());
      }
      if (pick(4) == 0) {
        allowed[i].resize(static_cast<std::size_t>((vocab + 63) / 64));
        const bool few = pick(2) == 0;
        for (std::uint64_t& word : allowed[i]) word = few ? (pick(50) == 0 ? 5U : 0U) : rng.next();
      }
      row.seen = seen[i];
      row.generated = generated[i];
      row.forbidden = forbidden[i];
      row.logit_bias = bias[i];
      row.allowed = allowed[i];
      row.uniform = rng.uniform();
      row.logprob = pick(2) == 0;
      row.top_logprobs = pick(2) == 0 ? pick(21) : 0;
    }
  }
};

TEST_F(GpuSampling, DrawsTheTokensOfTheCpu) {
  Rng rng(11);
  std::int64_t drawn = 0, failed = 0;
  for (const std::int64_t vocab : {65536, 50304, 1, 31, 5000, 131072, 32768, 65537}) {
    constexpr std::int64_t kLogits = 24;
    at::Tensor logits = random_tensor({kLogits, vocab}, at::kFloat, static_cast<std::uint64_t>(vocab), 3.0);
    logits.select(0, 0).mul_(2.0).round_().div_(2.0);  // many ties
    logits.select(0, 1).fill_(0.5);
    logits.select(0, 2).mul_(0.05);  // nearly flat
    logits.select(0, 3).mul_(5.0);
    logits.select(0, 4).masked_fill_(logits.select(0, 5).gt(-2.0), -std::numeric_limits<double>::infinity());
    logits.select(0, 6).fill_(-std::numeric_limits<double>::infinity());
    logits[7][vocab / 2] = kNan;
    logits[8][vocab / 3] = std::numeric_limits<double>::infinity();
    const RandomRows random(rng, 160, kLogits, vocab);
    const std::vector<SampledRow> expected = sample(logits, random.rows);
    const at::Tensor gpu_logits = on_gpu(logits);
    const DeviceSamples samples(gpu_logits, random.rows);
    const std::vector<SampledRow> got = samples.read();
    const at::Tensor tokens = samples.tokens().cpu();
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      const SampleRow& row = random.rows[i];
      const auto name = [&] {
        return "vocabulary " + std::to_string(vocab) + ", draw " + std::to_string(i) + " of row " + std::to_string(row.row);
      };
      EXPECT_EQ(got[i].error, expected[i].error) << name();
      const std::int32_t next = tokens.const_data_ptr<std::int32_t>()[i];
      if (!expected[i].error.empty()) {
        EXPECT_EQ(next, -1);
        ++failed;
        continue;
      }
      ++drawn;
      EXPECT_EQ(got[i].token.id, expected[i].token.id) << name();
      EXPECT_EQ(next, expected[i].token.id) << name();
      EXPECT_NEAR(got[i].token.logprob, expected[i].token.logprob, 1e-4) << name();
      ASSERT_EQ(got[i].top.size(), expected[i].top.size()) << name();
      for (std::size_t j = 0; j < got[i].top.size(); ++j) {
        EXPECT_EQ(got[i].top[j].id, expected[i].top[j].id) << name();
        if (std::isinf(expected[i].top[j].logprob)) continue;
        EXPECT_NEAR(got[i].top[j].logprob, expected[i].top[j].logprob, 1e-4) << name();
      }
    }
  }
  EXPECT_GT(drawn, 800);
  EXPECT_GT(failed, 50);
}

// Logits as the model has them: the soft cap finds the most likely tokens while it writes them.
TEST_F(GpuSampling, TheExtremesOfSoftCappedLogitsAreWhatDrawsLookFor) {
  Rng rng(3);
  for (const std::int64_t vocab : {65536, 5000, 1025, 1024, 1023, 7}) {
    const std::int64_t padded = (vocab + 63) / 64 * 64;
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      at::Tensor z = random_tensor({9, padded}, dtype, static_cast<std::uint64_t>(vocab), 4.0);
      z.select(0, 1).fill_(1.5);
      z[2][vocab / 2] = kNan;
      z[2][vocab - 1] = kNan;
      z.select(0, 3).fill_(-1000.0);
      for (const double softcap : {15.0, 0.0}) {
        const at::Tensor on = on_gpu(z), logits = on_gpu(at::empty({9, vocab}, at::kFloat));
        const at::Tensor extremes = logit_extremes(12, vocab, on.device());
        at::Tensor out = logits;
        softcap_logits(on, {.vocab_size = vocab, .softcap = softcap}, out, extremes);
        const RandomRows random(rng, 60, 9, vocab);
        const std::vector<SampledRow> expected = sample(logits.cpu(), random.rows);
        const std::vector<SampledRow> got = DeviceSamples(logits, random.rows, {}, {}, extremes).read();
        const std::vector<SampledRow> looked_for = DeviceSamples(logits, random.rows).read();
        for (std::size_t i = 0; i < got.size(); ++i) {
          EXPECT_EQ(got[i].error, expected[i].error) << vocab << " draw " << i;
          EXPECT_EQ(got[i].token.id, expected[i].token.id) << vocab << " draw " << i;
          EXPECT_EQ(got[i].token.id, looked_for[i].token.id) << vocab << " draw " << i;
          EXPECT_EQ(got[i].token.logprob, looked_for[i].token.logprob) << vocab << " draw " << i;  // bit for bit
        }
      }
    }
  }
  const at::Tensor logits = on_gpu(at::zeros({4, 3000}, at::kFloat));
  const std::vector<SampleRow> rows(4);
  EXPECT_THROW(DeviceSamples(logits, rows, {}, {}, logit_extremes(3, 3000, logits.device())), c10::Error);
  EXPECT_THROW(DeviceSamples(logits, rows, {}, {}, logit_extremes(4, 5000, logits.device())), c10::Error);
}

// Top-k and top-p of all sizes, around the most tokens that are looked at alone, in distributions of all shapes.
TEST_F(GpuSampling, CutsAreThoseOfTheCpuHoweverManyTokensTheyKeep) {
  constexpr std::int64_t kVocab = 65536;
  at::Tensor logits = random_tensor({6, kVocab}, at::kFloat, 21, 1.0);
  const double scales[] = {0.01, 0.5, 2.0, 5.0, 20.0, 100.0};
  for (std::int64_t i = 0; i < 6; ++i) logits.select(0, i).mul_(scales[i]);
  Rng rng(4);
  std::vector<SampleRow> rows;
  for (std::int64_t row = 0; row < 6; ++row) {
    for (const std::int64_t top_k : {0, 1, 2, 50, 191, 192, 193, 511, 512, 513, 5000}) {
      for (const double top_p : {1e-6, 0.5, 0.95, 0.9999, 1.0}) {
        for (const double temperature : {1.0, 0.7}) {
          rows.push_back({.row = row, .temperature = temperature, .top_k = top_k, .top_p = top_p, .uniform = rng.uniform()});
        }
      }
    }
  }
  const std::vector<SampledRow> expected = sample(logits, rows), got = sample(on_gpu(logits), rows);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(got[i].token.id, expected[i].token.id)
        << "row " << rows[i].row << ", top-k " << rows[i].top_k << ", top-p " << rows[i].top_p;
    EXPECT_NEAR(got[i].token.logprob, expected[i].token.logprob, 1e-4);
  }
  // Draws of which none needs a sum of weights.
  std::vector<SampleRow> greedy;
  for (std::int64_t row = 0; row < 6; ++row) greedy.push_back({.row = row, .temperature = 0.0, .logprob = false});
  const std::vector<SampledRow> most_likely = sample(on_gpu(logits), greedy);
  for (std::size_t row = 0; row < 6; ++row) {
    EXPECT_EQ(most_likely[row].token.id, logits[static_cast<std::int64_t>(row)].argmax().item<std::int64_t>());
    EXPECT_EQ(most_likely[row].token.logprob, 0.0);
  }
}

TEST_F(GpuSampling, ATokenDoesNotDependOnTheOthers) {
  Rng rng(5);
  const at::Tensor logits = on_gpu(random_tensor({8, 50304}, at::kFloat, 1, 3.0));
  const RandomRows random(rng, 64, 8, 50304);
  const std::vector<SampledRow> together = sample(logits, random.rows);
  for (std::size_t i = 0; i < random.rows.size(); i += 7) {
    const std::vector<SampledRow> alone = sample(logits, std::vector<SampleRow>{random.rows[i]});
    EXPECT_EQ(alone[0].token.id, together[i].token.id);
    EXPECT_EQ(alone[0].token.logprob, together[i].token.logprob);  // bit for bit
  }
}

TEST_F(GpuSampling, ATokenThatTheDeviceAloneKnowsIsPenalisedToo) {
  Rng rng(8);
  constexpr std::int64_t kVocab = 3000;
  const at::Tensor logits = random_tensor({8, kVocab}, at::kFloat, 1, 3.0);
  RandomRows random(rng, 64, 8, kVocab);
  std::vector<std::int32_t> last(64);
  std::vector<SampleRow> ahead = random.rows;
  for (std::size_t i = 0; i < 64; ++i) {
    // Often the most likely token, so that it matters.
    last[i] = i % 2 == 0 ? logits[random.rows[i].row].argmax().item<std::int32_t>()
                         : static_cast<std::int32_t>(rng.below(kVocab));
    ahead[i].last_input = static_cast<std::int64_t>(i);
    random.seen[i].push_back(last[i]);
    random.generated[i].push_back(last[i]);
    random.rows[i].seen = random.seen[i];
    random.rows[i].generated = random.generated[i];
    ahead[i].seen = random.rows[i].seen.first(random.seen[i].size() - 1);
    ahead[i].generated = random.rows[i].generated.first(random.generated[i].size() - 1);
  }
  const at::Tensor inputs = on_gpu(at::tensor(last, at::kInt)), tokens = on_gpu(at::full({70}, -7, at::kInt));
  const std::vector<SampledRow> expected = sample(logits, random.rows);
  const DeviceSamples samples(on_gpu(logits), ahead, tokens, inputs);
  const std::vector<SampledRow> got = samples.read();
  for (std::size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(got[i].token.id, expected[i].token.id) << i;
    EXPECT_EQ(tokens[static_cast<std::int64_t>(i)].item<std::int32_t>(), expected[i].error.empty() ? expected[i].token.id : -1)
        << i;
  }
  EXPECT_TRUE(tokens.narrow(0, 64, 6).eq(-7).all().item<bool>());
  EXPECT_THROW(DeviceSamples(on_gpu(logits), random.rows, tokens.narrow(0, 0, 63)), c10::Error);
}

TEST_F(GpuSampling, RefusesMasksThatAreTooShortAndRowsThatAreNotThere) {
  const at::Tensor logits = on_gpu(random_tensor({2, 100}, at::kFloat, 1));
  const std::vector<std::uint64_t> mask = {1};
  EXPECT_THROW(sample(logits, std::vector<SampleRow>{{.allowed = mask}}), c10::Error);
  EXPECT_THROW(sample(logits, std::vector<SampleRow>{{.row = 2}}), c10::Error);
  EXPECT_TRUE(sample(logits, std::vector<SampleRow>{}).empty());
}

TEST_F(GpuSampling, GraphsReplayWhatWasRecorded) {
  const at::Tensor x = on_gpu(random_tensor({4, 64}, at::kBFloat16, 1)), w = on_gpu(random_tensor({64, 64}, at::kBFloat16, 2));
  at::Tensor y = at::empty_like(x), expected = at::empty_like(x);
  DeviceGraph graph(at::Device(at::kCUDA, 0), [&] {
    linear_rows(x, w, y);
    relu_squared(y, y);
  });
  for (std::uint64_t seed = 3; seed < 6; ++seed) {
    x.copy_(random_tensor({4, 64}, at::kBFloat16, seed));
    graph.replay();
    linear_rows(x, w, expected);
    relu_squared(expected, expected);
    EXPECT_TRUE(y.equal(expected));
    EXPECT_FALSE(y.eq(0.0).all().item<bool>());
  }
}

}  // namespace
}  // namespace nanochat::ops
