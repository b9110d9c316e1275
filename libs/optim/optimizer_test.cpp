#include "optim/optimizer.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "model/memory.h"
#include "model/testing.h"
#include "model/testing_config.h"

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

// Of nanochat-2026-07, by group: the rate for a width of 768 and its factor for a width of 192, betas and decay.
struct NewestRule {
  OptimizerGroup group;
  double rate, width_factor, beta1, beta2, decay;
};
constexpr NewestRule kNewestRules[] = {
    {OptimizerGroup::kHead, 0.008, 2.0, 0.8, 0.96, 0.01},
    {OptimizerGroup::kEmbedding, 0.3, 2.0, 0.8, 0.995, 0.001},
    {OptimizerGroup::kValueEmbedding, 0.15, 2.0, 0.8, 0.995, 0.01},
    {OptimizerGroup::kResidualScale, 0.005, 1.0, 0.8, 0.95, 0.05},
    {OptimizerGroup::kEmbeddingScale, 0.5, 1.0, 0.96, 0.95, 0.0},
    {OptimizerGroup::kSmear, 0.2, 1.0, 0.8, 0.95, 0.0},
};

OptimizerOptions newest_options() {
  OptimizerOptions options;
  options.rules = OptimizerRules::kNanochat2026_07;
  options.embedding_lr = 0.3;
  options.unembedding_lr = 0.008;
  options.normuon.dtype = at::kFloat;
  return options;
}

TEST(Optimizer, GroupsOfTheNewestHaveRulesOfTheirOwn) {
  for (const NewestRule& expected : kNewestRules) {
    for (const std::int64_t width : {768, 192}) {
      const AdamWRule rule = adamw_rule(newest_options(), expected.group, width);
      const std::string what = "group " + std::to_string(static_cast<int>(expected.group));
      EXPECT_NEAR(rule.learning_rate, expected.rate * (width == 768 ? 1.0 : expected.width_factor), 1e-12) << what;
      EXPECT_EQ(rule.options.beta1, expected.beta1) << what;
      EXPECT_EQ(rule.options.beta2, expected.beta2) << what;
      EXPECT_EQ(rule.options.weight_decay, expected.decay) << what;
      EXPECT_EQ(rule.options.eps, 1e-10) << what;
    }
  }
  OptimizerOptions options = newest_options();
  options.scalar_lr = 1.0;
  EXPECT_EQ(adamw_rule(options, OptimizerGroup::kResidualScale, 768).learning_rate, 0.01);
  EXPECT_EQ(adamw_rule(options, OptimizerGroup::kEmbeddingScale, 768).learning_rate, 1.0);
  EXPECT_EQ(adamw_rule(options, OptimizerGroup::kSmear, 768).learning_rate, 0.2) << "does not follow the other rates";
}

// Every parameter over some steps, by the formulas in float64. Some gradients are so small that eps counts.
TEST(Optimizer, UpdatesEveryParameterOfTheNewest) {
  constexpr double kTolerance = 1e-4;  // of the sum of all updates, the smallest of which are 1e5 units of float32
  const GptConfig model_config = testing::newest_config(90, 16);
  Gpt model = random_model(model_config, at::kFloat, 1);
  Optimizer optimizer(model.parameters(), model_config.n_embd, newest_options());
  struct Plain {
    at::Tensor value, m, v;
    ops::MatrixList matrices;
    std::vector<at::Tensor> moments;
  };
  std::vector<Plain> plain;
  std::vector<at::Tensor> before;
  for (const Parameter& parameter : model.parameters()) {
    const at::Tensor value = parameter.value.clone();
    Plain one{value.to(at::kDouble), at::zeros_like(value, at::kDouble), at::zeros_like(value, at::kDouble), {}, {}};
    if (parameter.spec.group == OptimizerGroup::kMatrix) {
      one.matrices.add(value, at::Tensor(), at::zeros_like(value), value);
      one.moments.push_back(make_second_moment(value));
    }
    plain.push_back(std::move(one));
    before.push_back(value.clone());
  }
  const double width_scale = std::sqrt(768.0 / static_cast<double>(model_config.n_embd));
  for (int step = 1; step <= 4; ++step) {
    give_gradients(model, static_cast<std::uint64_t>(step));
    const double multiplier = 0.25 * step, momentum = 0.8 + 0.03 * step, decay = 0.4 - 0.05 * step;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      Parameter& parameter = model.parameters()[i];
      Plain& one = plain[i];
      if (parameter.spec.group == OptimizerGroup::kMatrix) {
        one.matrices.gradient[0] = parameter.grad.clone();
        normuon_step(one.matrices, one.moments,
                     {.learning_rate = 0.02 * multiplier, .momentum = momentum, .weight_decay = decay, .grad_scale = 0.5},
                     {.beta2 = 0.9, .dtype = at::kFloat});
        continue;
      }
      parameter.grad.mul_(1e-8);
      const auto* rule = std::find_if(std::begin(kNewestRules), std::end(kNewestRules),
                                      [&](const NewestRule& r) { return r.group == parameter.spec.group; });
      const double rate = rule->rate * (rule->width_factor > 1.0 ? width_scale : 1.0) * multiplier;
      const at::Tensor gradient = parameter.grad.to(at::kDouble).mul(0.5);
      one.value.mul_(1.0 - rate * rule->decay);
      one.m.mul_(rule->beta1).add_(gradient, 1.0 - rule->beta1);
      one.v.mul_(rule->beta2).add_(gradient.square(), 1.0 - rule->beta2);
      const at::Tensor root = one.v.div(1.0 - std::pow(rule->beta2, step)).sqrt().add(1e-10);
      one.value.sub_(one.m.div(root).mul(rate / (1.0 - std::pow(rule->beta1, step))));
    }
    optimizer.step(multiplier, momentum, 0.5, decay);
  }
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const Parameter& parameter = model.parameters()[i];
    const bool is_matrix = parameter.spec.group == OptimizerGroup::kMatrix;
    const at::Tensor expected = is_matrix ? plain[i].matrices.value[0].to(at::kDouble) : plain[i].value;
    const double moved = expected.sub(before[i]).norm().item<double>();
    EXPECT_GT(moved, 0.0) << parameter.name;
    EXPECT_LT(parameter.value.to(at::kDouble).sub(expected).norm().item<double>(), kTolerance * moved) << parameter.name;
  }
}

// A vocabulary of which the state goes through float32 in two parts. A first step does not depend on how its state is rounded.
TEST(Optimizer, StateInBfloat16IsUpdatedInFloat32) {
  // Of changes: the rounding of bfloat16, a few times over. Orthogonalising lifts small singular values, and their rounding with
  // them: 8.5 times was measured.
  constexpr double kTolerance = 16.0 / 256;
  for (const std::int64_t vocabulary : {90, 140'000}) {
    for (const bool newest : {false, true}) {
      if (newest && vocabulary > 90) continue;  // it has value embeddings, too
      SCOPED_TRACE(::testing::Message() << vocabulary << (newest ? ", newest" : ""));
      GptConfig model_config = newest ? testing::newest_config(vocabulary, 16) : GptConfig::from_depth(2, vocabulary, 16);
      Gpt model = random_model(model_config, at::kFloat, 1), other = random_model(model_config, at::kFloat, 1);
      OptimizerOptions options = newest ? newest_options() : OptimizerOptions();
      options.muon.dtype = at::kFloat;
      Optimizer expected(model.parameters(), model_config.n_embd, options);
      options.state_dtype = at::kBFloat16;
      Optimizer optimizer(other.parameters(), model_config.n_embd, options);
      give_gradients(model, 2);
      give_gradients(other, 2);
      expected.step(0.5, 0.9, 1.0, 0.1);
      optimizer.step(0.5, 0.9, 1.0, 0.1);
      const auto wide = expected.state(), narrow = optimizer.state();
      std::int64_t wide_bytes = 0, narrow_bytes = 0;
      for (std::size_t i = 0; i < wide.size(); ++i) {
        wide_bytes += static_cast<std::int64_t>(wide[i].second.nbytes());
        narrow_bytes += static_cast<std::int64_t>(narrow[i].second.nbytes());
        EXPECT_TRUE(at::equal(wide[i].second.to(narrow[i].second.scalar_type()), narrow[i].second)) << wide[i].first;
      }
      EXPECT_LT(narrow_bytes, 0.52 * wide_bytes);
      for (std::size_t i = 0; i < model.parameters().size(); ++i) {
        EXPECT_TRUE(at::equal(model.parameters()[i].value, other.parameters()[i].value)) << model.parameters()[i].name;
      }
      // Later steps see rounded moments.
      give_gradients(model, 3);
      give_gradients(other, 3);
      std::vector<at::Tensor> before;
      for (const Parameter& parameter : model.parameters()) before.push_back(parameter.value.clone());
      expected.step(0.5, 0.9, 1.0, 0.1);
      optimizer.step(0.5, 0.9, 1.0, 0.1);
      for (std::size_t i = 0; i < before.size(); ++i) {
        const Parameter& parameter = model.parameters()[i];
        if (!has_large_state(parameter.spec)) continue;
        const double moved = parameter.value.sub(before[i]).norm().item<double>();
        const double apart = parameter.value.sub(other.parameters()[i].value).norm().item<double>();
        EXPECT_LT(apart, kTolerance * moved) << parameter.name;
        EXPECT_GT(apart, 0.0) << parameter.name;
      }
    }
  }
}

TEST(Optimizer, NeedsGradients) {
  Gpt model = random_model(config(), at::kFloat, 1);
  Optimizer optimizer(model.parameters(), 128, {});
  EXPECT_THROW(optimizer.step(1.0, 0.9, 1.0), c10::Error);
}

}  // namespace
}  // namespace nanochat
