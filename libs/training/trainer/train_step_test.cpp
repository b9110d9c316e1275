#include "training/trainer/train_step.h"

#include <ATen/ops/equal.h>

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "model/testing.h"
#include "model/testing_config.h"
#include "training/trainer/testing_batch.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TokenBatch random_batch(std::int64_t rows, std::int64_t time, std::uint64_t seed) {
  return testing::random_batch(rows, time, 90, seed);
}

class TrainStep : public ::testing::Test {
 protected:
  GptConfig config_ = GptConfig::from_depth(2, 90, 16);
  Gpt model_ = testing::random_model(config_, at::kFloat, 1);
  Optimizer optimizer_{model_.parameters(), config_.n_embd, {}};
  std::vector<std::int32_t> bytes_ = std::vector<std::int32_t>(90, 1);
};

TEST_F(TrainStep, LearnsABatch) {
  const std::vector<TokenBatch> batches{random_batch(4, 16, 5)};
  StepResult first = train_step(model_, optimizer_, batches, {}, bytes_);
  StepResult last;
  for (int i = 0; i < 20; ++i) last = train_step(model_, optimizer_, batches, {}, bytes_);
  EXPECT_LT(last.loss, 0.5 * first.loss);
  EXPECT_EQ(first.tokens, 64);
  EXPECT_NEAR(first.bits_per_byte.value(), first.loss / std::log(2.0), 1e-5);
  EXPECT_GT(first.grad_norm, 0.0);
}

TEST_F(TrainStep, MicroBatchesEqualOneBatch) {
  constexpr double kTolerance = 1e-5;
  Gpt other = testing::random_model(config_, at::kFloat, 1);
  OptimizerOptions options;
  options.muon.dtype = at::kFloat;
  Optimizer one(model_.parameters(), config_.n_embd, options), two(other.parameters(), config_.n_embd, options);
  TokenBatch top = random_batch(2, 16, 5), bottom = random_batch(2, 16, 6);
  for (int i = 0; i < 9; ++i) top.targets[static_cast<std::size_t>(i)] = -1;  // unequal shares of supervised tokens
  TokenBatch both{4, 16, top.inputs, top.targets, {}};
  both.inputs.insert(both.inputs.end(), bottom.inputs.begin(), bottom.inputs.end());
  both.targets.insert(both.targets.end(), bottom.targets.begin(), bottom.targets.end());
  const StepResult whole = train_step(model_, one, {both}, {}, bytes_);
  const StepResult parts = train_step(other, two, {top, bottom}, {}, bytes_);
  EXPECT_NEAR(whole.loss, parts.loss, kTolerance);
  EXPECT_NEAR(whole.grad_norm, parts.grad_norm, kTolerance);
  for (std::size_t i = 0; i < model_.parameters().size(); ++i) {
    if (model_.parameters()[i].spec.group != OptimizerGroup::kMatrix) continue;  // Adam's first step is a sign: noise flips it
    const double change = model_.parameters()[i].value.sub(other.parameters()[i].value).norm().item<double>();
    EXPECT_LT(change, 1e-3) << model_.parameters()[i].name;
  }
}

// Weights of one over the supervised tokens are what a batch without weights has.
TEST_F(TrainStep, WeightsAreFactorsOfTheLosses) {
  Gpt other = testing::random_model(config_, at::kFloat, 1);
  Optimizer plain(model_.parameters(), config_.n_embd, {}), weighted(other.parameters(), config_.n_embd, {});
  TokenBatch top = random_batch(2, 16, 5), bottom = random_batch(2, 16, 6);
  for (int i = 0; i < 9; ++i) top.targets[static_cast<std::size_t>(i)] = -1;
  const StepResult expected = train_step(model_, plain, {top, bottom}, {}, bytes_);
  for (TokenBatch* batch : {&top, &bottom}) batch->weights.assign(32, 1.0F / 55.0F);  // 64 - 9 are supervised
  const StepResult result = train_step(other, weighted, {top, bottom}, {});
  EXPECT_NEAR(result.loss, expected.loss, 1e-6);
  EXPECT_EQ(result.grad_norm, expected.grad_norm);
  EXPECT_EQ(result.bits_per_byte.tokens, 0) << "not asked for";
  for (std::size_t i = 0; i < model_.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(model_.parameters()[i].value, other.parameters()[i].value)) << model_.parameters()[i].name;
  }
  // Twice the weight, twice the gradient: there is no mean over tokens.
  for (TokenBatch* batch : {&top, &bottom}) batch->weights.assign(32, 2.0F / 55.0F);
  Gpt third = testing::random_model(config_, at::kFloat, 1);
  Optimizer doubled(third.parameters(), config_.n_embd, {});
  EXPECT_NEAR(train_step(third, doubled, {top, bottom}, {}).grad_norm, 2.0 * expected.grad_norm, 1e-5);
}

TEST_F(TrainStep, ABatchWithoutTargetsChangesNothingButDecay) {
  TokenBatch batch = random_batch(2, 16, 5);
  std::fill(batch.targets.begin(), batch.targets.end(), -1);
  const at::Tensor before = model_.parameters()[3].value.clone();
  const StepResult result = train_step(model_, optimizer_, {batch}, {}, bytes_);
  EXPECT_EQ(result.loss, 0.0);
  EXPECT_EQ(result.grad_norm, 0.0);
  EXPECT_TRUE(at::equal(before, model_.parameters()[3].value));
}

// Losses of steps on one batch. The scales of nanochat-2026-07 stay as they are: its branches begin with zeros, so that the first
// gradients of the scales are nothing but rounding, whose signs Adam would make steps of 0.5 of. Losses in float32 and bfloat16 are
// then as far apart as those in bfloat16 and 8 bits.
std::vector<double> losses_of(Architecture architecture, bool fp8) {
  constexpr int kSteps = 10;
  const GptConfig config = GptConfig::from_depth(2, 90, 32, architecture);
  OptimizerOptions options;
  if (config.is_2026()) options.rules = OptimizerRules::kNanochat2026_07;
  options.scalar_lr = options.smear_lr = 0.0;
  options.muon.dtype = options.normuon.dtype = at::kFloat;
  Gpt model(config, at::kBFloat16);
  model.init_weights(3);
  model.set_fp8(fp8);
  Optimizer optimizer(model.parameters(), config.n_embd, options);
  const std::vector<TokenBatch> batches{random_batch(4, 32, 5)};
  std::vector<double> losses;
  for (int step = 0; step < kSteps; ++step) {
    losses.push_back(train_step(model, optimizer, batches, {}).loss);
  }
  return losses;
}

TEST(Fp8TrainStep, LearnsAsInBfloat16) {
  constexpr double kTolerance = 0.01;  // of the first loss
  for (const Architecture architecture : {Architecture::kNanochat2025_12, Architecture::kNanochat2026_07}) {
    const std::vector<double> expected = losses_of(architecture, false), found = losses_of(architecture, true);
    EXPECT_LT(expected.back(), 0.6 * expected.front());
    EXPECT_NE(found.back(), expected.back());
    for (std::size_t step = 0; step < expected.size(); ++step) {
      EXPECT_NEAR(found[step], expected[step], kTolerance * expected.front()) << architecture_name(architecture) << ' ' << step;
    }
  }
}

// Of nanochat-2026-07. In the reference, the loss over such a batch is a mean over nothing.
TEST(NewestTrainStep, ABatchWithoutTargetsIsNoNaN) {
  const GptConfig config = testing::newest_config(90, 16);
  OptimizerOptions options;
  options.rules = OptimizerRules::kNanochat2026_07;
  options.normuon.dtype = at::kFloat;
  const StepSettings settings{.muon_momentum = 0.95, .grad_clip = 0.0};
  TokenBatch empty = random_batch(2, 16, 5);
  std::fill(empty.targets.begin(), empty.targets.end(), -1);
  const TokenBatch full = random_batch(2, 16, 6);
  Gpt model = testing::random_model(config, at::kFloat, 1), other = testing::random_model(config, at::kFloat, 1);
  Optimizer optimizer(model.parameters(), config.n_embd, options), of_other(other.parameters(), config.n_embd, options);
  const StepResult mixed = train_step(model, optimizer, {empty, full}, settings);
  const StepResult alone = train_step(other, of_other, {full}, settings);
  EXPECT_GT(mixed.loss, 1.0);
  EXPECT_EQ(mixed.loss, alone.loss) << "the other batch counts for nothing";
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(model.parameters()[i].value, other.parameters()[i].value)) << model.parameters()[i].name;
  }
  const StepResult none = train_step(model, optimizer, {empty}, settings);
  EXPECT_EQ(none.loss, 0.0);
  EXPECT_EQ(none.grad_norm, 0.0);
  for (const Parameter& parameter : model.parameters()) {
    EXPECT_TRUE(std::isfinite(parameter.value.sum(at::kDouble).item<double>())) << parameter.name;
  }
}

TEST_F(TrainStep, ANaNIsNamedAndNotApplied) {
  at::Tensor& poisoned = model_.parameters()[5].value;
  poisoned.select(0, 0).select(0, 0).fill_(std::numeric_limits<double>::quiet_NaN());
  const at::Tensor head = model_.parameters().back().value.clone();
  EXPECT_THAT([&] { train_step(model_, optimizer_, {random_batch(2, 16, 5)}, {}, bytes_); },
              ThrowsMessage<NumericalError>(HasSubstr(model_.parameters()[5].name)));
  EXPECT_TRUE(at::equal(head, model_.parameters().back().value));
  EXPECT_EQ(optimizer_.steps(), 0);
}

}  // namespace
}  // namespace nanochat
