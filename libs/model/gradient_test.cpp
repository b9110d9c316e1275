// Every gradient of the written-out backward pass against autograd on the plain model.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "model/gpt.h"
#include "model/testing.h"
#include "model/testing_config.h"
#include "ops/testing.h"

namespace nanochat {
namespace {

using testing::naive_forward;
using testing::naive_leaves;
using testing::random_ids;
using testing::random_model;

struct Case {
  const char* name;
  std::int64_t n_kv_head;
  double softcap;
  at::ScalarType dtype;
  double tolerance;  // norm of the difference over the norm
};

class Gradients : public ::testing::TestWithParam<Case> {};

TEST_P(Gradients, EqualAutograd) {
  const Case& c = GetParam();
  GptConfig config = GptConfig::from_depth(3, 90, 40);
  config.n_head = 6;
  config.n_kv_head = c.n_kv_head;
  config.softcap = c.softcap;
  Gpt model = random_model(config, c.dtype, 11);
  const at::Tensor ids = random_ids(3, 40, config.vocab_size, 12);
  at::Tensor targets = random_ids(3, 40, config.vocab_size, 13);
  targets.select(0, 1).narrow(0, 3, 20).fill_(-1);
  auto generator = at::detail::createCPUGenerator(14);
  const at::Tensor scale = at::rand({3, 40}, generator);

  auto leaves = naive_leaves(model);
  const at::Tensor logits = naive_forward(config, leaves, ids);
  const at::Tensor losses = testing::naive_losses(logits, targets);
  losses.mul(scale.view({-1})).sum().backward();

  const at::Tensor ours = model.forward_backward(ids, targets, scale);
  EXPECT_LT(ours.view({-1}).sub(losses.detach()).norm().item<double>() / losses.detach().norm().item<double>(), c.tolerance);
  for (const Parameter& parameter : model.parameters()) {
    const at::Tensor expected = leaves[parameter.name].grad();
    const double relative = parameter.grad.sub(expected).norm().item<double>() / expected.norm().item<double>();
    EXPECT_GT(expected.norm().item<double>(), 0.0) << parameter.name;
    EXPECT_LT(relative, c.tolerance) << parameter.name;
  }
}

// Layers, and their attention, as the reference of July 2026 has them: rows longer than the short window, all scalars away from
// zero. One and two layers: backout takes the last one's output.
TEST(Gradients, OfTheNewestArchitectureEqualAutograd) {
  for (const std::int64_t layers : {1, 2, 5}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      GptConfig config = testing::newest_config(90, 300, layers == 2 ? 4 : 2);
      config.n_layer = layers;
      Gpt model = random_model(config, dtype, 11);
      const at::Tensor ids = random_ids(2, 200, config.vocab_size, 12);
      at::Tensor targets = random_ids(2, 200, config.vocab_size, 13);
      targets.select(0, 1).narrow(0, 3, 20).fill_(-1);
      auto generator = at::detail::createCPUGenerator(14);
      const at::Tensor scale = at::rand({2, 200}, generator);
      auto leaves = naive_leaves(model);
      const at::Tensor losses = testing::naive_losses(naive_forward(config, leaves, ids), targets);
      losses.mul(scale.view({-1})).sum().backward();
      const double tolerance = dtype == at::kFloat ? 2e-5 : 0.12;
      const at::Tensor ours = model.forward_backward(ids, targets, scale);
      EXPECT_LT(ours.view({-1}).sub(losses.detach()).norm().item<double>() / losses.detach().norm().item<double>(), tolerance);
      for (const Parameter& parameter : model.parameters()) {
        const at::Tensor expected = leaves[parameter.name].grad();
        if (parameter.spec.slot == WeightSlot::kBackoutScale && layers <= 2) {
          // A share of the last layer's output only scales what RMSNorm scales back: the gradient is rounding alone.
          EXPECT_LT(parameter.grad.abs().max().item<double>(), dtype == at::kFloat ? 1e-2 : 3.0);
          continue;
        }
        EXPECT_GT(expected.norm().item<double>(), 0.0) << parameter.name;
        const double relative = parameter.grad.sub(expected).norm().item<double>() / expected.norm().item<double>();
        EXPECT_LT(relative, tolerance) << parameter.name << ", " << layers << " layers, " << dtype;
      }
    }
  }
}

// Early in training the branches are small, and backout takes nine tenths of the stream away: what the stream was rounded to in
// bfloat16 would be ten times as large beside the rest. With a stream in bfloat16 the difference is 0.036.
TEST(Gradients, OfWhatBackoutLeavesArePreciseInBfloat16) {
  constexpr double kTolerance = 0.028;
  GptConfig config = testing::newest_config(90, 300, 2);
  config.n_layer = 8;
  const at::Tensor ids = random_ids(2, 200, config.vocab_size, 12), targets = random_ids(2, 200, config.vocab_size, 13);
  const at::Tensor scale = at::full({2, 200}, 1.0 / 400);
  const auto gradient_of_head = [&](at::ScalarType dtype) {
    Gpt model = random_model(config, dtype, 11);
    for (Parameter& parameter : model.parameters()) {
      if (parameter.name.ends_with("backout_lambda")) parameter.value.fill_(0.9);
      if (parameter.name.ends_with("resid_lambdas")) parameter.value.fill_(1.0);
      if (parameter.name.ends_with("x0_lambdas")) parameter.value.fill_(0.0);
      if (parameter.name.ends_with("o_proj.weight") || parameter.name.ends_with("fc2.weight")) parameter.value.mul_(0.01);
    }
    model.refresh_compute();
    model.forward_backward(ids, targets, scale);
    for (const Parameter& parameter : model.parameters()) {
      if (parameter.spec.slot == WeightSlot::kHead) return parameter.grad.clone();
    }
    return at::Tensor();
  };
  const at::Tensor expected = gradient_of_head(at::kFloat);
  EXPECT_LT(gradient_of_head(at::kBFloat16).sub(expected).norm().item<double>() / expected.norm().item<double>(), kTolerance);
}

constexpr double kFloatTolerance = 2e-5;
constexpr double kBfloatTolerance = 0.04;  // 8 bits of mantissa through three layers and back

INSTANTIATE_TEST_SUITE_P(Cases, Gradients,
                         ::testing::Values(Case{"plain", 6, 15.0, at::kFloat, kFloatTolerance},
                                           Case{"grouped", 2, 15.0, at::kFloat, kFloatTolerance},
                                           Case{"one_key", 1, 15.0, at::kFloat, kFloatTolerance},
                                           Case{"no_softcap", 6, 0.0, at::kFloat, kFloatTolerance},
                                           Case{"bfloat16", 2, 15.0, at::kBFloat16, kBfloatTolerance}),
                         [](const auto& param) { return param.param.name; });

TEST(Gradients, AccumulateOverMicroBatches) {
  const GptConfig config = GptConfig::from_depth(2, 90, 16);
  Gpt model = random_model(config, at::kFloat, 1);
  const at::Tensor ids = random_ids(4, 16, 90, 2), targets = random_ids(4, 16, 90, 3);
  const at::Tensor scale = at::full({4, 16}, 1.0 / 64, at::kFloat);
  model.forward_backward(ids, targets, scale);
  std::vector<at::Tensor> whole;
  for (const Parameter& parameter : model.parameters()) whole.push_back(parameter.grad.clone());
  model.zero_grad();
  for (const std::int64_t row : {0, 2}) {
    model.forward_backward(ids.narrow(0, row, 2), targets.narrow(0, row, 2), scale.narrow(0, row, 2));
  }
  for (std::size_t i = 0; i < whole.size(); ++i) {
    const at::Tensor& grad = model.parameters()[i].grad;
    EXPECT_LT(grad.sub(whole[i]).norm().item<double>(), kFloatTolerance * whole[i].norm().item<double>());
  }
}

// Two rows of documents packed, the last one a row of its own, against each document alone: losses and the sums of gradients.
TEST(Gradients, PackedDocumentsAreAsEachAlone) {
  constexpr double kTolerance = 1e-5;
  GptConfig older = GptConfig::from_depth(3, 90, 40);
  older.n_head = 6;
  older.n_kv_head = 2;
  GptConfig narrow = older;  // a table in bfloat16 does not quite rotate: positions must restart
  narrow.rope_table_bf16 = true;
  for (const GptConfig& config : {older, narrow, testing::newest_config(90, 40)}) {
    Gpt model = random_model(config, at::kFloat, 1);
    const at::Tensor ids = random_ids(2, 40, 90, 2), targets = random_ids(2, 40, 90, 3);
    const at::Tensor scale = at::rand({2, 40}, at::detail::createCPUGenerator(4));
    const std::vector<std::int32_t> lengths = {7, 32, 1, 40};
    const at::Tensor documents = ops::testing::offsets_of(lengths);
    const at::Tensor losses = model.forward_backward(ids, targets, scale, documents);
    EXPECT_LT(model.token_losses(ids, targets, documents).sub(losses).abs().max().item<double>(), kTolerance);
    std::vector<at::Tensor> packed;
    for (const Parameter& parameter : model.parameters()) packed.push_back(parameter.grad.clone());
    model.zero_grad();
    std::int64_t begin = 0;
    for (const std::int32_t length : lengths) {
      const auto part = [&](const at::Tensor& x) { return x.view({-1}).narrow(0, begin, length).view({1, length}); };
      const at::Tensor alone = model.forward_backward(part(ids), part(targets), part(scale));
      EXPECT_LT(alone.sub(part(losses)).abs().max().item<double>(), kTolerance) << begin;
      begin += length;
    }
    for (std::size_t i = 0; i < packed.size(); ++i) {
      const Parameter& parameter = model.parameters()[i];
      EXPECT_LT(parameter.grad.sub(packed[i]).norm().item<double>(), kTolerance * packed[i].norm().item<double>())
          << parameter.name;
    }
  }
}

// Communication between GPUs starts at these announcements: what is sent then must be what is there at the end.
TEST(Gradients, AreFinalWhenAnnounced) {
  GptConfig newest = testing::newest_config(90, 16);
  newest.n_layer = 3;
  for (const auto& [config, dtype] :
       {std::pair{GptConfig::from_depth(3, 90, 16), at::kFloat}, std::pair{newest, at::kFloat},
        std::pair{GptConfig::from_depth(3, 90, 16), at::kBFloat16}, std::pair{newest, at::kBFloat16}}) {
    Gpt model = random_model(config, dtype, 1);
    std::vector<std::int64_t> announced;
    std::vector<std::pair<const Parameter*, at::Tensor>> then;
    model.set_gradients_final([&](std::int64_t layer) {
      announced.push_back(layer);
      for (const Parameter& parameter : model.parameters()) {
        if (parameter.spec.layer == layer) then.emplace_back(&parameter, parameter.grad.clone());
      }
    });
    const at::Tensor ids = random_ids(4, 16, 90, 2);
    model.forward_backward(ids, ids, at::ones({4, 16}));
    EXPECT_EQ(announced, (std::vector<std::int64_t>{kAfterLayers, 2, 1, 0, kBeforeLayers}));
    ASSERT_EQ(then.size(), model.parameters().size());
    for (const auto& [parameter, gradient] : then) {
      EXPECT_GT(gradient.abs().max().item<double>(), 0.0) << parameter->name;
      EXPECT_TRUE(at::equal(gradient, parameter->grad)) << parameter->name;
    }
    model.set_gradients_final({});
    model.forward_backward(ids, ids, at::ones({4, 16}));
    EXPECT_EQ(announced.size(), 5U) << "nobody listens any more";
  }
}

// Layers whose forward pass runs again: rows of one document and of several, of both architectures, the last layer alone and
// first, and a model that turns it on and off.
TEST(Gradients, AreTheSameBitForBitWithRecomputation) {
  GptConfig grouped = GptConfig::from_depth(4, 90, 40);
  grouped.n_kv_head = 1;
  std::vector<GptConfig> configs = {grouped, testing::newest_config(90, 40)};
  for (const std::int64_t layers : {1, 2}) {
    configs.push_back(grouped);
    configs.back().n_layer = layers;
    configs.push_back(testing::newest_config(90, 40));
    configs.back().n_layer = layers;
  }
  const at::Tensor ids = random_ids(2, 40, 90, 2), targets = random_ids(2, 40, 90, 3);
  const at::Tensor scale = at::rand({2, 40}, at::detail::createCPUGenerator(4));
  for (const GptConfig& config : configs) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const at::Tensor& documents : {at::Tensor(), ops::testing::offsets_of({7, 32, 1, 40})}) {
        const std::string what = fmt::format("{} layers of {}, {}", config.n_layer, architecture_name(config.architecture),
                                             at::toString(dtype));
        Gpt model = random_model(config, dtype, 1);
        const auto pass = [&](bool recompute) {
          model.zero_grad();
          model.set_recompute(recompute);
          std::vector<at::Tensor> found = {model.forward_backward(ids, targets, scale, documents).clone()};
          for (const Parameter& parameter : model.parameters()) found.push_back(parameter.grad.clone());
          return found;
        };
        const std::vector<at::Tensor> kept = pass(false), again = pass(true), third = pass(true), back = pass(false);
        for (std::size_t i = 0; i < kept.size(); ++i) {
          const std::string name = i == 0 ? "losses" : model.parameters()[i - 1].name;
          EXPECT_TRUE(at::equal(kept[i], again[i])) << name << ", " << what;
          EXPECT_TRUE(at::equal(kept[i], third[i])) << name << ", " << what;
          EXPECT_TRUE(at::equal(kept[i], back[i])) << name << ", " << what;
        }
      }
    }
  }
}

// An observer looks at each tensor once, whether or not its layer is computed again.
TEST(Gradients, AreObservedOnceWithRecomputation) {
  Gpt model = random_model(testing::newest_config(90, 16), at::kFloat, 1);
  const at::Tensor ids = random_ids(2, 16, 90, 2);
  std::vector<std::string> names;
  model.set_observer([&](const std::string& name, const at::Tensor&) { names.push_back(name); });
  model.forward_backward(ids, ids, at::ones({2, 16}));
  const std::vector<std::string> plain = std::exchange(names, {});
  model.set_recompute(true);
  model.forward_backward(ids, ids, at::ones({2, 16}));
  EXPECT_EQ(names, plain);
}

// What is copied to a layer when the forward pass asks for it is in time: nothing is read before.
TEST(Gradients, ReadNoWeightBeforeTheyAskForIt) {
  for (const bool recompute : {false, true}) {
    for (const GptConfig& config : {GptConfig::from_depth(3, 90, 16), testing::newest_config(90, 16)}) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        Gpt model = random_model(config, dtype, 1);
        model.set_recompute(recompute);
        const at::Tensor ids = random_ids(4, 16, 90, 2), scale = at::ones({4, 16});
        const at::Tensor expected = model.forward_backward(ids, ids, scale).clone();
        std::vector<at::Tensor> right;
        for (Parameter& parameter : model.parameters()) {
          right.push_back(parameter.compute.clone());
          parameter.compute.fill_(std::numeric_limits<float>::quiet_NaN());
        }
        std::vector<std::int64_t> asked;
        model.set_weights_wanted([&](std::int64_t layer) {
          asked.push_back(layer);
          for (std::size_t i = 0; i < right.size(); ++i) {
            if (model.parameters()[i].spec.layer == layer) model.parameters()[i].compute.copy_(right[i]);
          }
        });
        EXPECT_TRUE(at::equal(model.forward_backward(ids, ids, scale), expected)) << dtype;
        std::vector<std::int64_t> order = {kBeforeLayers};
        for (std::int64_t layer = 0; layer < config.n_layer; ++layer) order.push_back(layer);
        order.push_back(kAfterLayers);
        EXPECT_EQ(asked, order);
        model.set_weights_wanted({});
        EXPECT_TRUE(at::isfinite(model.token_losses(ids, ids)).all().item<bool>()) << "everything has arrived";
        EXPECT_EQ(asked.size(), order.size());
      }
    }
  }
}

TEST(Gradients, RepeatBitForBit) {
  const GptConfig older = GptConfig::from_depth(2, 90, 16), newest = testing::newest_config(90, 16);
  for (const auto& [config, dtype] : {std::pair{older, at::kFloat}, std::pair{older, at::kBFloat16},
                                      std::pair{newest, at::kFloat}, std::pair{newest, at::kBFloat16}}) {
    Gpt model = random_model(config, dtype, 1);
    const at::Tensor ids = random_ids(4, 16, 90, 2);
    const at::Tensor scale = at::ones({4, 16});
    model.forward_backward(ids, ids, scale);
    std::vector<at::Tensor> first;
    for (const Parameter& parameter : model.parameters()) first.push_back(parameter.grad.clone());
    model.zero_grad();
    model.forward_backward(ids, ids, scale);
    for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], model.parameters()[i].grad)) << i;
  }
}

}  // namespace
}  // namespace nanochat
