// Small models of nanochat-2026-07 against the reference at 92d63d4: logits, gradients, updates, losses, scalars and weights over
// some steps, and greedy text. Every folder parity/head_l* of the shared data is a fixture. Their README says how the figures were
// made and how far rounding alone moves them; newest_fixtures.py makes more of them.

#include <gtest/gtest.h>

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/safetensors.h"
#include "checkpoint/torch_file.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "inference/contiguous_kv_cache.h"
#include "inference/generator.h"
#include "model/gpt.h"
#include "ops/device.h"
#include "optim/gradient.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "reference_fixture.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using parity::Batch;
using parity::batch_of;
using parity::fixture_config;
using parity::mean_scale;
using parity::read_json;

// The fixture's README suggests these, from what other orders of summation do on CPUs.
struct Tolerances {
  double logits;  // absolute
  double loss;  // of the stored weights
  double gradients;  // norm of the difference over norm, each tensor
  double first_update;  // relative, of its norm, each tensor
  double early_loss;  // absolute, the first 10 steps
  double late_loss;  // the other 30
  double norm;  // relative, of the gradient norm in all steps
  double scales;  // absolute, of resid_lambdas and x0_lambdas after every step
  double smear;  // absolute, of smear_lambda and backout_lambda after every step
  double weights;  // norm of the difference over norm, each tensor after the last step
  double median_weight;  // the median of those
};
constexpr Tolerances kCpuFloat = {5e-5, 5e-6, 5e-5, 2e-5, 1e-5, 1e-4, 2e-4, 2e-4, 3e-4, 2e-2, 3e-3};
constexpr Tolerances kGpuFloat = {5e-4, 5e-5, 5e-4, 2e-4, 1e-4, 1e-3, 2e-3, 2e-3, 3e-3, 1e-1, 3e-2};  // ten times a CPU's

constexpr const char* kStored = "head_l4_d128";

// Names of the fixtures; that of the stored one if there is none, for tests that then say what is absent.
std::vector<std::string> fixtures() {
  std::vector<std::string> names;
  if (const auto folder = testing::shared_path("parity")) {
    for (const fs::directory_entry& entry : fs::directory_iterator(*folder)) {
      const std::string name = entry.path().filename().string();
      if (entry.is_directory() && name.starts_with("head_l")) names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names.empty() ? std::vector<std::string>{kStored} : names;
}

struct Target {
  std::string fixture;
  const char* device_name;
  at::DeviceType device;
  Tolerances tolerances;
};
void PrintTo(const Target& target, std::ostream* out) { *out << target.fixture << " on " << target.device_name; }

std::vector<Target> targets() {
  std::vector<Target> all;
  for (const std::string& name : fixtures()) {
    all.push_back({name, "cpu_float32", at::kCPU, kCpuFloat});
    all.push_back({name, "cuda_float32", at::kCUDA, kGpuFloat});
  }
  return all;
}

Gpt load(const fs::path& fixture, const TensorSource& source, at::Device device = at::kCPU) {
  Gpt model(fixture_config(fixture), at::kFloat, device);
  EXPECT_EQ(source.entries().size(), model.parameters().size());
  for (Parameter& parameter : model.parameters()) parameter.value.copy_(source.tensor(parameter.spec.reference_name()));
  model.refresh_compute();
  return model;
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  return a.cpu().sub(b).norm().item<double>() / b.norm().item<double>();
}

// The weights after the last step.
fs::path final_weights_of(const fs::path& fixture) {
  return fixture / fmt::format("model_{:06d}.pt", read_json(fixture / "expected.json").at("steps").size());
}

class NewestOn : public ::testing::TestWithParam<Target> {
 protected:
  void SetUp() override {
    if (target_.device == at::kCUDA && ops::cuda_devices() == 0) GTEST_SKIP() << "no GPU that this build can use";
  }
  const Target target_ = GetParam();
  const Tolerances& tolerance_ = target_.tolerances;
};
INSTANTIATE_TEST_SUITE_P(Fixtures, NewestOn, ::testing::ValuesIn(targets()),
                         [](const auto& tested) { return tested.param.fixture + "_" + tested.param.device_name; });

class Newest : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Fixtures, Newest, ::testing::ValuesIn(fixtures()), [](const auto& tested) { return tested.param; });

TEST_P(Newest, LayersAreThoseOfTheFixture) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/" + GetParam());
  const GptConfig config = fixture_config(fixture);
  const json fields = read_json(fixture / "config.json");
  std::vector<std::int64_t> windows, with_values;
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
    const LayerPlan plan = plan_layer(config, layer);
    windows.push_back(plan.window.value());
    if (plan.value_embedding) with_values.push_back(layer);
  }
  EXPECT_EQ(windows, fields.at("left_windows").get<std::vector<std::int64_t>>());
  EXPECT_EQ(with_values, fields.at("value_embedding_layers").get<std::vector<std::int64_t>>());
  EXPECT_EQ(backout_layer(config), fields.at("backout_layer").get<std::int64_t>());
  EXPECT_EQ(config.padded_vocab_size(), fields.at("padded_vocab_size").get<std::int64_t>());
}

TEST_P(Newest, InitialWeightsAreTheReferencesBitForBit) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/" + GetParam());
  const json expected = read_json(fixture / "expected.json");
  if (!expected.contains("reference_init")) GTEST_SKIP() << "the fixture was not made by the reference";
  Gpt model(fixture_config(fixture), at::kFloat);
  model.init_weights(expected.at("seed").get<std::uint64_t>());
  for (const Parameter& parameter : model.parameters()) {
    const at::Tensor dense = parameter.value.contiguous();
    const std::string bytes(static_cast<const char*>(dense.const_data_ptr()), static_cast<std::size_t>(dense.nbytes()));
    EXPECT_EQ(sha256_hex(bytes),
              expected.at("reference_init").at(parameter.spec.reference_name()).at("sha256").get<std::string>())
        << parameter.name;
  }
}

TEST_P(NewestOn, StoredWeightsGiveTheLogitsTheLossAndTheGradients) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/" + target_.fixture);
  const json expected = read_json(fixture / "expected.json");
  Gpt model = load(fixture, TorchFile(final_weights_of(fixture)), target_.device);
  const SafetensorsFile figures(fixture / "final_logits.safetensors"), gradients(fixture / "final_grads.safetensors");
  const double difference = model.forward(figures.tensor("ids")).cpu().sub(figures.tensor("logits")).abs().max().item<double>();
  std::printf("logits: largest difference %.2e\n", difference);
  EXPECT_LE(difference, tolerance_.logits);
  const Batch batch = batch_of(SafetensorsFile(fixture / "batches.safetensors").tensor("batches"), 0);
  const at::Tensor losses = model.forward_backward(batch.ids, batch.targets, mean_scale(batch));
  EXPECT_NEAR(losses.mean(at::kDouble).item<double>(), expected.at("final_loss_batch0").get<double>(), tolerance_.loss);
  ASSERT_EQ(gradients.entries().size(), model.parameters().size());
  double worst = 0.0;
  for (const Parameter& parameter : model.parameters()) {
    const double found = relative(parameter.grad, gradients.tensor(parameter.spec.reference_name()));
    EXPECT_LE(found, tolerance_.gradients) << parameter.name;
    worst = std::max(worst, found);
  }
  std::printf("gradients: largest relative difference %.2e\n", worst);
}

TEST_P(NewestOn, TrainingAgrees) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/" + target_.fixture);
  const json expected = read_json(fixture / "expected.json");
  const json& plan = expected.at("schedule");
  const at::Tensor batches = SafetensorsFile(fixture / "batches.safetensors").tensor("batches");
  Gpt model = load(fixture, SafetensorsFile(fixture / "init.safetensors"), target_.device);
  const json& hyper = expected.at("hyperparameters");
  Optimizer optimizer(model.parameters(), model.config().n_embd, parity::fixture_options(hyper, at::kFloat));
  const LearningRateSchedule rates = parity::fixture_rates(plan);
  const NorMuonSchedule muon = parity::fixture_muon(plan, hyper);
  double early = 0.0, late = 0.0, norms = 0.0, scales = 0.0;
  for (const json& figures : expected.at("steps")) {
    const std::int64_t step = figures.at("step");
    const Batch batch = batch_of(batches, step);
    model.zero_grad();
    const at::Tensor losses = model.forward_backward(batch.ids, batch.targets, mean_scale(batch));
    const double loss = std::abs(losses.mean(at::kDouble).item<double>() - figures.at("loss").get<double>());
    EXPECT_LE(loss, step < 10 ? tolerance_.early_loss : tolerance_.late_loss) << "step " << step;
    (step < 10 ? early : late) = std::max(step < 10 ? early : late, loss);
    const double expected_norm = figures.at("grad_norm");
    const double norm = std::abs(gradient_norm(model.parameters()) - expected_norm) / expected_norm;
    EXPECT_LE(norm, tolerance_.norm) << "step " << step;
    norms = std::max(norms, norm);
    EXPECT_NEAR(rates.multiplier(step), figures.at("lr_multiplier").get<double>(), 1e-12);
    EXPECT_NEAR(muon.momentum(step), figures.at("muon_momentum").get<double>(), 1e-12);
    EXPECT_NEAR(muon.decay(step), figures.at("muon_weight_decay").get<double>(), 1e-12);
    std::vector<at::Tensor> before;
    for (const Parameter& parameter : model.parameters()) before.push_back(step == 0 ? parameter.value.clone() : at::Tensor());
    optimizer.step(rates.multiplier(step), muon.momentum(step), 1.0, muon.decay(step));
    for (std::size_t i = 0; i < before.size(); ++i) {
      const Parameter& parameter = model.parameters()[i];
      const std::string name = parameter.spec.reference_name();
      if (step == 0) {
        const double gradient = expected.at("step0_grad_norms").at(name), update = expected.at("step0_update_norms").at(name);
        EXPECT_NEAR(parameter.grad.norm().item<double>(), gradient, tolerance_.gradients * gradient) << name;
        EXPECT_NEAR(parameter.value.sub(before[i]).to(at::kDouble).norm().item<double>(), update,
                    tolerance_.first_update * update)
            << name;
      }
      if (parameter.spec.role != TensorRole::kScalars) continue;
      const bool many = figures.at(name).is_array();
      const at::Tensor value = parameter.value.cpu();
      for (std::int64_t k = 0; k < value.numel(); ++k) {
        const double wanted = many ? figures.at(name).at(static_cast<std::size_t>(k)).get<double>()
                                   : figures.at(name).get<double>();
        const double found = std::abs(value[k].item<double>() - wanted);
        EXPECT_LE(found, many ? tolerance_.scales : tolerance_.smear) << name << " after step " << step;
        scales = std::max(scales, found);
      }
    }
  }
  std::printf("losses: largest difference %.2e in the first 10 steps, %.2e after; gradient norms %.2e; scalars %.2e\n", early,
              late, norms, scales);
  const TorchFile final_weights(final_weights_of(fixture));
  std::vector<double> differences;
  for (const Parameter& parameter : model.parameters()) {
    differences.push_back(relative(parameter.value, final_weights.tensor(parameter.spec.reference_name())));
    EXPECT_LE(differences.back(), tolerance_.weights) << parameter.name;
  }
  std::sort(differences.begin(), differences.end());
  EXPECT_LE(differences[differences.size() / 2], tolerance_.median_weight);
  std::printf("weights after the last step: relative difference at most %.2e, median %.2e\n", differences.back(),
              differences[differences.size() / 2]);
}

at::Tensor row_of(std::vector<std::int32_t> ids) {
  return at::from_blob(ids.data(), {1, static_cast<std::int64_t>(ids.size())}, at::kInt).clone();
}

// Both prompts pass the short window, one of them the context too, where the long windows slide.
TEST_P(NewestOn, GreedyTextIsExact) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/" + target_.fixture);
  Gpt model = load(fixture, TorchFile(final_weights_of(fixture)), target_.device);
  for (const json& greedy : read_json(fixture / "expected.json").at("greedy")) {
    const auto prompt = greedy.at("prompt").get<std::vector<std::int32_t>>();
    const auto completion = greedy.at("completion").get<std::vector<std::int32_t>>();
    const auto top = greedy.at("top_logit").get<std::vector<double>>();
    std::vector<std::int32_t> ids = prompt;
    const auto capacity = static_cast<std::int64_t>(prompt.size() + completion.size());
    ContiguousKvCache cache(model.config(), at::kFloat, 1, capacity, model.device());
    at::Tensor next = row_of(prompt);
    double largest = 0.0;
    for (std::size_t i = 0; i < completion.size(); ++i) {
      const at::Tensor whole = model.forward(row_of(ids)).select(1, -1).cpu(), cached = model.forward_cache(next, cache).cpu();
      for (const at::Tensor& logits : {whole, cached}) {
        ASSERT_EQ(logits.argmax().item<std::int32_t>(), completion[i]) << "token " << i;
        largest = std::max(largest, std::abs(logits.max().item<double>() - top[i]));
      }
      ids.push_back(completion[i]);
      next = row_of({completion[i]});
    }
    std::printf("greedy text after %zu tokens: largest logit differs by at most %.2e\n", prompt.size(), largest);
    EXPECT_LE(largest, tolerance_.logits);
    if (ids.size() > static_cast<std::size_t>(model.config().sequence_len)) continue;  // more than the engine takes
    GenerationOptions options;
    options.max_tokens = static_cast<std::int64_t>(completion.size());
    options.sampling.temperature = 0.0;
    EXPECT_EQ(generate(model, {prompt}, options).at(0).ids, completion) << "by the engine";
  }
}

// The fixture tells features apart: with one of them changed, the loss of the stored weights must move by more than the tolerance.
TEST(NewestFeatures, EachOfTheNetworkIsNoticed) {
  NANOCHAT_SHARED_OR_SKIP(fixture, std::string("parity/") + kStored);
  const TorchFile weights(final_weights_of(fixture));
  const double expected = read_json(fixture / "expected.json").at("final_loss_batch0");
  const Batch batch = batch_of(SafetensorsFile(fixture / "batches.safetensors").tensor("batches"), 0);
  const auto moved = [&](const std::function<void(GptConfig&)>& change_config,
                         const std::function<void(Parameter&)>& change_weight) {
    const Gpt original = load(fixture, weights);
    GptConfig config = original.config();
    change_config(config);
    Gpt model(config, at::kFloat);
    for (std::size_t i = 0; i < model.parameters().size(); ++i) {
      Parameter& parameter = model.parameters()[i];
      parameter.value.copy_(original.parameters()[i].value);
      change_weight(parameter);
    }
    return std::abs(model.loss(batch.ids, batch.targets) - expected);
  };
  const auto same_config = [](GptConfig&) {};
  const auto same_weight = [](Parameter&) {};
  EXPECT_LE(moved(same_config, same_weight), kCpuFloat.loss);
  const std::map<std::string, std::function<void(GptConfig&)>> configs = {
      {"scale of queries and keys", [](GptConfig& c) { c.qk_scale = 1.0; }},
      {"RoPE base", [](GptConfig& c) { c.rope_base = 10000.0; }},
      {"windows", [](GptConfig& c) { c.window_pattern = "L"; }},
      {"order of windows", [](GptConfig& c) { c.window_pattern = "LSS"; }},
  };
  for (const auto& [name, change] : configs) EXPECT_GT(moved(change, same_weight), 10 * kCpuFloat.loss) << name;
  const std::map<std::string, std::pair<WeightSlot, double>> features = {
      {"smear", {WeightSlot::kSmearScale, 0.0}},
      {"backout", {WeightSlot::kBackoutScale, 0.0}},
      {"residual scales", {WeightSlot::kResidualScale, 1.0}},
      {"embedding scales", {WeightSlot::kEmbeddingScale, 0.0}},
      {"value embeddings", {WeightSlot::kValueEmbedding, 0.0}},
      {"value gates", {WeightSlot::kValueGate, 0.0}},
      {"smear gate", {WeightSlot::kSmearGate, 0.0}},
  };
  for (const auto& [name, feature] : features) {
    const auto fill = [&, slot = feature.first, to = feature.second](Parameter& parameter) {
      if (parameter.spec.slot == slot) parameter.value.fill_(to);
    };
    EXPECT_GT(moved(same_config, fill), 10 * kCpuFloat.loss) << name;
  }
}

}  // namespace
}  // namespace nanochat
