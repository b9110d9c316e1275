#include "optim/optimizer.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "model/testing.h"

namespace nanochat {
namespace {

using testing::random_ids;
using testing::random_model;

GptConfig config() {
  GptConfig c = GptConfig::from_depth(2, 90, 16);
  c.n_kv_head = 1;
  return c;
}

void give_gradients(Gpt& model, std::uint64_t seed) {
  const at::Tensor ids = random_ids(2, 16, 90, seed);
  model.zero_grad();
  model.forward_backward(ids, ids, at::ones({2, 16}));
}

TEST(Optimizer, GivesEachKindItsRuleAndRate) {
  Gpt model = random_model(config(), at::kFloat, 1);
  std::vector<at::Tensor> before;
  for (const Parameter& parameter : model.parameters()) before.push_back(parameter.value.clone());
  OptimizerOptions options;
  options.muon.dtype = at::kFloat;
  Optimizer optimizer(model.parameters(), config().n_embd, options);
  give_gradients(model, 2);
  optimizer.step(0.5, 0.9, 1.0);
  EXPECT_EQ(optimizer.steps(), 1);
  const double width_scale = std::sqrt(768.0 / 128.0);
  for (std::size_t i = 0; i < before.size(); ++i) {
    const Parameter& parameter = model.parameters()[i];
    const at::Tensor change = parameter.value.sub(before[i]);
    if (parameter.spec.group == OptimizerGroup::kMatrix) {
      const at::Tensor value = before[i].clone();
      ops::MatrixList alone;
      alone.add(value, parameter.grad, at::zeros_like(value), value);
      muon_step(alone, 0.5 * 0.02, 0.9, 1.0, options.muon);
      EXPECT_LT(parameter.value.sub(value).abs().max().item<double>(), 1e-5) << parameter.name;
      EXPECT_GT(change.abs().max().item<double>(), 0.0) << parameter.name;
    } else {
      // The first step of Adam moves each weight with a gradient by the learning rate.
      const double rate = 0.5 * width_scale * (parameter.spec.group == OptimizerGroup::kEmbedding ? 0.2 : 0.004);
      EXPECT_NEAR(change.abs().max().item<double>(), rate, 1e-3 * rate) << parameter.name;
    }
  }
}

TEST(Optimizer, NamesItsStateAndContinuesFromIt) {
  Gpt model = random_model(config(), at::kFloat, 1), other = random_model(config(), at::kFloat, 1);
  Optimizer first(model.parameters(), 128, {}), second(other.parameters(), 128, {});
  give_gradients(model, 2);
  first.step(1.0, 0.9, 1.0);
  std::set<std::string> names;
  const auto from = first.state(), to = second.state();
  for (std::size_t i = 0; i < from.size(); ++i) {
    ASSERT_EQ(from[i].first, to[i].first);
    EXPECT_TRUE(names.insert(from[i].first).second) << from[i].first;
    at::Tensor target = to[i].second;
    target.copy_(from[i].second);
  }
  EXPECT_EQ(names.size(), 2U * 2U + 12U);
  EXPECT_TRUE(names.contains("lm_head.weight.exp_avg_sq"));
  EXPECT_TRUE(names.contains("model.layers.1.mlp.fc2.weight.momentum_buffer"));
  second.set_steps(first.steps());
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    other.parameters()[i].value.copy_(model.parameters()[i].value);
  }
  give_gradients(model, 3);
  give_gradients(other, 3);
  first.step(1.0, 0.9, 1.0);
  second.step(1.0, 0.9, 1.0);
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(model.parameters()[i].value, other.parameters()[i].value)) << model.parameters()[i].name;
  }
}

TEST(Optimizer, NeedsGradients) {
  Gpt model = random_model(config(), at::kFloat, 1);
  Optimizer optimizer(model.parameters(), 128, {});
  EXPECT_THROW(optimizer.step(1.0, 0.9, 1.0), c10::Error);
}

}  // namespace
}  // namespace nanochat
