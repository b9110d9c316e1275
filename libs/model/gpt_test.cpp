#include "model/gpt.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/normal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include <gtest/gtest.h>

#include "model/testing.h"

namespace nanochat {
namespace {

using testing::naive_forward;
using testing::naive_leaves;
using testing::random_ids;
using testing::random_model;

GptConfig small_config(std::int64_t n_kv_head = 2) {
  GptConfig config = GptConfig::from_depth(2, 100, 48);
  config.n_head = 4;
  config.n_kv_head = n_kv_head;
  return config;
}

TEST(Gpt, LogitsEqualThePlainModel) {
  constexpr double kTolerance = 2e-5;  // float32, sums in another order
  for (const std::int64_t n_kv_head : {1, 2, 4}) {
    for (const bool rounded_table : {false, true}) {
      GptConfig config = small_config(n_kv_head);
      config.rope_table_bf16 = rounded_table;
      Gpt model = random_model(config, at::kFloat, 7);
      const at::Tensor ids = random_ids(3, 48, config.vocab_size, 8);
      auto leaves = naive_leaves(model);
      const at::Tensor expected = naive_forward(config, leaves, ids).detach();
      const at::Tensor logits = model.forward(ids);
      ASSERT_EQ(logits.sizes(), expected.sizes());
      EXPECT_LT(logits.sub(expected).abs().max().item<double>(), kTolerance) << n_kv_head << rounded_table;
    }
  }
}

TEST(Gpt, MovesWithItsWeights) {
  Gpt model = random_model(small_config(), at::kFloat, 7);
  const at::Tensor ids = random_ids(2, 16, model.config().vocab_size, 8);
  const at::Tensor before = model.forward(ids);
  Gpt moved = std::move(model);
  EXPECT_TRUE(at::equal(moved.forward(ids), before));
}

TEST(Gpt, TheRopeTablesPrecisionMatters) {
  GptConfig config = small_config();
  Gpt exact = random_model(config, at::kFloat, 7);
  config.rope_table_bf16 = true;
  Gpt rounded = random_model(config, at::kFloat, 7);
  const at::Tensor ids = random_ids(1, 48, config.vocab_size, 8);
  EXPECT_GT(exact.forward(ids).sub(rounded.forward(ids)).abs().max().item<double>(), 1e-4);
}

TEST(Gpt, LossIsTheMeanOverSupervisedTokens) {
  const GptConfig config = small_config();
  Gpt model = random_model(config, at::kFloat, 3);
  const at::Tensor ids = random_ids(2, 16, config.vocab_size, 4);
  at::Tensor targets = random_ids(2, 16, config.vocab_size, 5);
  targets.narrow(1, 0, 5).fill_(-1);
  const at::Tensor expected = testing::naive_losses(model.forward(ids), targets);
  const at::Tensor losses = model.token_losses(ids, targets);
  EXPECT_LT(losses.view({-1}).sub(expected).abs().max().item<double>(), 1e-5);
  EXPECT_EQ(losses.narrow(1, 0, 5).abs().max().item<double>(), 0.0);
  EXPECT_NEAR(model.loss(ids, targets), expected.sum().item<double>() / 22.0, 1e-5);
  EXPECT_EQ(model.loss(ids, at::full_like(targets, -1)), 0.0);
}

TEST(Gpt, BfloatLogitsStayCloseToFloat) {
  constexpr double kBfloatTolerance = 0.12;  // 2^-8 relative per product, over 2 layers of logits of magnitude 3
  const GptConfig config = small_config();
  Gpt exact = random_model(config, at::kFloat, 7);
  Gpt narrow = random_model(config, at::kBFloat16, 7);
  const at::Tensor ids = random_ids(2, 48, config.vocab_size, 8);
  const at::Tensor difference = exact.forward(ids).sub(narrow.forward(ids)).abs();
  EXPECT_LT(difference.max().item<double>(), kBfloatTolerance);
  EXPECT_GT(difference.max().item<double>(), 0.0);
}

TEST(Gpt, InitialWeightsAreTheReferencesDraws) {
  const GptConfig config = small_config();
  Gpt model(config, at::kFloat);
  model.init_weights(42);
  auto generator = at::detail::createCPUGenerator(42);
  for (const Parameter& parameter : model.parameters()) {
    const double fan_out = static_cast<double>(parameter.value.size(0)), fan_in = static_cast<double>(parameter.value.size(1));
    const bool embedding = parameter.name == "model.embed_tokens.weight";
    const double deviation = embedding ? 1.0 : 1.0 / std::sqrt(fan_in) * std::min(1.0, std::sqrt(fan_out / fan_in));
    const at::Tensor drawn = at::empty(parameter.value.sizes()).normal_(0.0, deviation, generator);
    const bool zero = parameter.name == "lm_head.weight" || parameter.name.ends_with("o_proj.weight") ||
                      parameter.name.ends_with("fc2.weight");
    EXPECT_TRUE(at::equal(parameter.value, zero ? at::zeros_like(drawn) : drawn)) << parameter.name;
  }
  EXPECT_NEAR(model.loss(random_ids(1, 8, 100, 1), random_ids(1, 8, 100, 2)), std::log(100.0), 1e-5);
}

TEST(Gpt, ParameterNamesAndCountsAreThoseOfTheConfiguration) {
  const GptConfig config = small_config();
  const Gpt model(config, at::kFloat);
  ASSERT_EQ(model.parameters().size(), 2U + 6U * 2U);
  EXPECT_EQ(model.parameters()[1].name, "model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(model.parameters().back().name, "lm_head.weight");
  std::int64_t count = 0;
  for (const Parameter& parameter : model.parameters()) count += parameter.value.numel();
  EXPECT_EQ(count, config.parameter_count());
}

TEST(Gpt, PaddedVocabularyChangesNothing) {
  const GptConfig config = small_config();  // 100 tokens padded to 128
  Gpt model = random_model(config, at::kFloat, 3);
  const at::Tensor ids = random_ids(1, 12, config.vocab_size, 4);
  const at::Tensor before = model.token_losses(ids, ids);
  model.parameters().back().value.narrow(0, 100, 28).fill_(50.0);
  model.refresh_compute();
  EXPECT_TRUE(at::equal(before, model.token_losses(ids, ids)));
  EXPECT_EQ(model.forward(ids).size(2), 100);
}

TEST(Gpt, RefusesWhatDoesNotFit) {
  const GptConfig config = small_config();
  Gpt model = random_model(config, at::kFloat, 3);
  EXPECT_THROW(model.forward(at::full({1, 4}, 128, at::kInt)), c10::Error);
  EXPECT_THROW(model.forward(at::full({1, 4}, -1, at::kInt)), c10::Error);
  EXPECT_THROW(model.forward(at::zeros({1, 4}, at::kLong)), c10::Error);
  EXPECT_THROW(model.forward(at::zeros({1, 0}, at::kInt)), c10::Error);
  EXPECT_THROW(model.token_losses(at::zeros({1, 4}, at::kInt), at::full({1, 4}, 100, at::kInt)), c10::Error);
  EXPECT_THROW(Gpt(config, at::kHalf), c10::Error);
}

TEST(Gpt, AModelForInferenceHasTheWeightsAndNothingElse) {
  const GptConfig config = small_config();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Gpt trained = random_model(config, dtype, 3);
    Gpt served(config, dtype, at::kCPU, Purpose::kInference);
    for (std::size_t i = 0; i < served.parameters().size(); ++i) {
      Parameter& parameter = served.parameters()[i];
      EXPECT_EQ(parameter.value.scalar_type(), dtype);
      EXPECT_EQ(parameter.value.const_data_ptr(), parameter.compute.const_data_ptr()) << parameter.name;
      parameter.value.copy_(trained.parameters()[i].value);
    }
    const at::Tensor ids = random_ids(2, 16, config.vocab_size, 4);
    EXPECT_TRUE(at::equal(trained.forward(ids), served.forward(ids)));
    EXPECT_TRUE(at::equal(trained.token_losses(ids, ids), served.token_losses(ids, ids)));
    EXPECT_THROW(served.zero_grad(), c10::Error);
    EXPECT_THROW(served.forward_backward(ids, ids, at::ones({2, 16})), c10::Error);
  }
}

TEST(Gpt, InitialWeightsDoNotDependOnThePurpose) {
  const GptConfig config = small_config();
  Gpt trained(config, at::kBFloat16), served(config, at::kBFloat16, at::kCPU, Purpose::kInference);
  trained.init_weights(5);
  served.init_weights(5);
  for (std::size_t i = 0; i < served.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(served.parameters()[i].value, trained.parameters()[i].compute)) << served.parameters()[i].name;
  }
}

TEST(Gpt, ReusesItsBuffersAcrossShapes) {
  const GptConfig config = small_config();
  Gpt model = random_model(config, at::kFloat, 3);
  const auto gradient = [&](std::int64_t batch, std::int64_t time) {
    const at::Tensor ids = random_ids(batch, time, config.vocab_size, 4);
    model.zero_grad();
    model.forward_backward(ids, ids, at::ones({batch, time}));
    return model.parameters()[3].grad.clone();
  };
  const at::Tensor first = gradient(2, 16);
  gradient(1, 48);
  EXPECT_TRUE(at::equal(first, gradient(2, 16)));
}

}  // namespace
}  // namespace nanochat
