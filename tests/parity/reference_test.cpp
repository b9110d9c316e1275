// A small grouped-query model against the reference: one ladder from logits over gradients to losses in training and
// greedy text. The fixture's README says how its figures were made.

#include <gtest/gtest.h>

#include <ATen/ops/full.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "core/testing.h"
#include "inference/generator.h"
#include "ops/device.h"
#include "optim/gradient.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kEarlySteps = 10;

struct Tolerances {
  double logits;      // absolute, of soft-capped logits up to 15
  double gradients;   // norm of the difference over norm, each tensor
  double early_loss;  // the first 10 steps
  double loss;        // all 40: rounding alone moves the late ones by 1e-3
  double early_norm;  // relative, of the gradient norm in the first 10 steps
  double norm;        // relative, in all 40
};
constexpr Tolerances kCpuFloat = {2e-4, 1e-3, 5e-4, 2e-3, 2e-3, 2e-2};
constexpr Tolerances kGpuFloat = {1e-3, 5e-3, 2.5e-3, 1e-2, 1e-2, 0.1};  // five times the CPU's
// Of a model computed in bf16, whose figures are float32's: three digits in every activation.
constexpr Tolerances kBfloat = {0.15, 0.05, 0.02, 0.05, 0.1, 0.3};

struct Target {
  const char* name;
  at::DeviceType device;
  at::ScalarType dtype;
  Tolerances tolerances;
};
void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

double max_difference(const at::Tensor& a, const at::Tensor& b) { return a.sub(b).abs().max().item<double>(); }

nlohmann::json expected_figures(const fs::path& fixture) {
  std::ifstream stream(fixture / "expected.json");
  return nlohmann::json::parse(stream);
}

// Batch `step` as the model takes it: int32 (8, 128) inputs and targets.
struct Batch {
  at::Tensor ids, targets;
};
Batch batch_of(const at::Tensor& batches, std::int64_t step) {
  const at::Tensor rows = batches.select(0, step);
  const std::int64_t length = rows.size(1) - 1;
  return {rows.narrow(1, 0, length).contiguous(), rows.narrow(1, 1, length).contiguous()};
}

// Every token weighs the same in the loss.
at::Tensor mean_scale(const Batch& batch) {
  return at::full(batch.ids.sizes(), 1.0 / static_cast<double>(batch.ids.numel()), at::kFloat);
}

class ReferenceOn : public ::testing::TestWithParam<Target> {
 protected:
  void SetUp() override {
    if (target_.device == at::kCUDA && ops::cuda_devices() == 0) GTEST_SKIP() << "no GPU that this build can use";
  }
  LoadedModel load(const fs::path& path) const { return load_model(path, target_.dtype, target_.device, Purpose::kTraining); }

  const Target target_ = GetParam();
  const Tolerances& tolerance_ = target_.tolerances;
};

INSTANTIATE_TEST_SUITE_P(Devices, ReferenceOn,
                         ::testing::Values(Target{"cpu_float32", at::kCPU, at::kFloat, kCpuFloat},
                                           Target{"cpu_bfloat16", at::kCPU, at::kBFloat16, kBfloat},
                                           Target{"cuda_float32", at::kCUDA, at::kFloat, kGpuFloat},
                                           Target{"cuda_bfloat16", at::kCUDA, at::kBFloat16, kBfloat}),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(Reference, ConfigIsUnderstood) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/gqa_l4_d128");
  const GptConfig config = describe_checkpoint(fixture / "final.safetensors").config;
  GptConfig expected;
  expected.sequence_len = 128;
  expected.vocab_size = 1024;
  expected.n_layer = 4;
  expected.n_head = 4;
  expected.n_kv_head = 2;
  expected.n_embd = 128;
  expected.intermediate_size = 512;
  expected.rope_table_bf16 = true;
  EXPECT_EQ(config, expected);
}

TEST_P(ReferenceOn, LogitsAgree) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/gqa_l4_d128");
  const LoadedModel loaded = load(fixture / "final.safetensors");
  const SafetensorsFile figures(fixture / "final_logits.safetensors");
  const at::Tensor logits = loaded.model->forward(figures.tensor("ids")).cpu();
  ASSERT_EQ(logits.sizes(), at::IntArrayRef({2, 128, 1024}));
  const double difference = max_difference(logits, figures.tensor("logits"));
  std::printf("logits: largest difference %.2e (tolerance %.0e)\n", difference, tolerance_.logits);
  EXPECT_LE(difference, tolerance_.logits);
}

// The fixture must be able to tell the two kinds of rotary tables apart, or the test above shows less than it says.
TEST(Reference, RotaryTableDtypeMatters) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/gqa_l4_d128");
  const LoadedModel loaded = load_model(fixture / "final.safetensors", at::kFloat);
  GptConfig config = loaded.model->config();
  config.rope_table_bf16 = false;
  Gpt model(config, at::kFloat);
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    model.parameters()[i].value.copy_(loaded.model->parameters()[i].value);
  }
  const SafetensorsFile figures(fixture / "final_logits.safetensors");
  EXPECT_GT(max_difference(model.forward(figures.tensor("ids")), figures.tensor("logits")), kCpuFloat.logits);
}

TEST_P(ReferenceOn, GradientsAgree) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/gqa_l4_d128");
  LoadedModel loaded = load(fixture / "final.safetensors");
  const SafetensorsFile figures(fixture / "final_grads.safetensors");
  const Batch batch = batch_of(SafetensorsFile(fixture / "batches.safetensors").tensor("batches"), 0);
  loaded.model->forward_backward(batch.ids, batch.targets, mean_scale(batch));
  ASSERT_EQ(figures.entries().size(), loaded.model->parameters().size());
  double worst = 0.0;
  for (const Parameter& parameter : loaded.model->parameters()) {
    const at::Tensor expected = figures.tensor(parameter.name);
    ASSERT_EQ(parameter.grad.sizes(), expected.sizes()) << parameter.name;
    const double relative = parameter.grad.cpu().sub(expected).norm().item<double>() / expected.norm().item<double>();
    EXPECT_LE(relative, tolerance_.gradients) << parameter.name;
    worst = std::max(worst, relative);
  }
  std::printf("gradients: largest relative difference %.2e (tolerance %.0e)\n", worst, tolerance_.gradients);
}

TEST_P(ReferenceOn, TrainingAgrees) {
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/gqa_l4_d128");
  const nlohmann::json expected = expected_figures(fixture);
  const at::Tensor batches = SafetensorsFile(fixture / "batches.safetensors").tensor("batches");
  LoadedModel loaded = load(fixture / "init.safetensors");

  OptimizerOptions options;
  const nlohmann::json& hyper = expected.at("hyperparameters");
  options.embedding_lr = hyper.at("embedding_lr");
  options.unembedding_lr = hyper.at("unembedding_lr");
  options.matrix_lr = hyper.at("matrix_lr");
  const nlohmann::json& adamw = expected.at("adamw");
  options.adamw = {adamw.at("betas").at(0), adamw.at("betas").at(1), adamw.at("eps"), adamw.at("weight_decay")};
  options.muon.nesterov = expected.at("muon").at("nesterov");
  options.muon.newton_schulz_steps = expected.at("muon").at("ns_steps");
  options.muon.dtype = at::kBFloat16;
  Optimizer optimizer(loaded.model->parameters(), loaded.model->config().n_embd, options);

  const double max_norm = expected.at("grad_clip");
  double early_loss = 0.0, late_loss = 0.0, early_norm = 0.0, late_norm = 0.0;
  for (const nlohmann::json& figures : expected.at("steps")) {
    const std::int64_t step = figures.at("step");
    const Batch batch = batch_of(batches, step);
    loaded.model->zero_grad();
    const at::Tensor losses = loaded.model->forward_backward(batch.ids, batch.targets, mean_scale(batch));
    const double norm = gradient_norm(loaded.model->parameters());
    const double expected_norm = figures.at("grad_norm");
    const double loss_difference = std::abs(losses.mean(at::kDouble).item<double>() - figures.at("loss").get<double>());
    const double norm_difference = std::abs(norm - expected_norm) / expected_norm;
    const bool early = step < kEarlySteps;
    EXPECT_LE(loss_difference, early ? tolerance_.early_loss : tolerance_.loss) << "step " << step;
    EXPECT_LE(norm_difference, early ? tolerance_.early_norm : tolerance_.norm) << "step " << step;
    (early ? early_loss : late_loss) = std::max(early ? early_loss : late_loss, loss_difference);
    (early ? early_norm : late_norm) = std::max(early ? early_norm : late_norm, norm_difference);
    EXPECT_DOUBLE_EQ(muon_momentum(step), figures.at("muon_momentum").get<double>());
    optimizer.step(expected.at("lr_multiplier"), muon_momentum(step), clip_scale(norm, max_norm));
  }
  std::printf("losses: largest difference %.2e in the first 10 steps, %.2e after\n", early_loss, late_loss);
  std::printf("gradient norms: largest relative difference %.2e in the first 10 steps, %.2e after\n", early_norm, late_norm);
}

TEST_P(ReferenceOn, GreedyContinuationIsExact) {
  if (target_.dtype != at::kFloat) GTEST_SKIP() << "bf16 may turn a close call around";
  NANOCHAT_SHARED_OR_SKIP(fixture, "parity/gqa_l4_d128");
  const nlohmann::json greedy = expected_figures(fixture).at("greedy");
  const auto prompt = greedy.at("prompt").get<std::vector<std::int32_t>>();
  const auto completion = greedy.at("completion").get<std::vector<std::int32_t>>();
  LoadedModel loaded = load(fixture / "final.safetensors");

  std::vector<std::int32_t> ids = prompt;
  for (std::size_t i = 0; i < completion.size(); ++i) {
    const at::Tensor input = at::from_blob(ids.data(), {1, static_cast<std::int64_t>(ids.size())}, at::kInt).clone();
    ids.push_back(loaded.model->forward(input).select(1, -1).argmax().item<std::int32_t>());
  }
  EXPECT_EQ(std::vector<std::int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(prompt.size()), ids.end()), completion);

  GenerationOptions options;
  options.max_tokens = static_cast<std::int64_t>(completion.size());
  options.sampling.temperature = 0.0;
  EXPECT_EQ(generate(*loaded.model, {prompt}, options).at(0).ids, completion) << "through the KV cache";
}

}  // namespace
}  // namespace nanochat
