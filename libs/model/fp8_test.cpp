// Training passes in 8 bits, on a CPU: the same numbers that a GPU multiplies, in float32 (ops/fp8.h).

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "model/gpt.h"
#include "model/testing_config.h"
#include "ops/device.h"
#include "ops/fp8.h"
#include "ops/testing.h"

namespace nanochat {
namespace {

constexpr std::int64_t kBatch = 2, kTime = 32;

GptConfig config_of(Architecture architecture) {
  GptConfig config = GptConfig::from_depth(2, 300, kTime, architecture);
  config.validate();
  return config;
}

at::Tensor ids(std::int64_t seed) {
  at::Tensor result = at::empty({kBatch, kTime}, at::kInt);
  Rng rng(static_cast<std::uint64_t>(seed));
  for (std::int64_t i = 0; i < result.numel(); ++i)
    result.data_ptr<std::int32_t>()[i] = static_cast<std::int32_t>(rng.below(300));
  return result;
}

struct Result {
  at::Tensor losses;
  std::map<std::string, at::Tensor> gradients;
};

// `zeros`: matrices that begin with zeros keep them.
Result pass(const GptConfig& config, at::Device device, bool fp8, bool recompute = false, bool zeros = false) {
  Gpt model(config, at::kBFloat16, device);
  model.init_weights(7);
  // Matrices that begin with zeros would hide the gradients of what they read.
  for (Parameter& parameter : model.parameters()) {
    if (!zeros && parameter.value.dim() == 2 && parameter.value.abs().max().item<double>() == 0.0) {
      parameter.value.copy_(ops::testing::random_tensor(parameter.value.sizes(), at::kFloat, 11, 0.05));
    }
  }
  model.refresh_compute();
  model.set_fp8(fp8);
  model.set_recompute(recompute);
  Result result;
  result.losses = model.forward_backward(ids(1), ids(2), at::full({kBatch, kTime}, 1.0 / (kBatch * kTime))).cpu();
  for (const Parameter& parameter : model.parameters()) result.gradients[parameter.name] = parameter.grad.cpu();
  return result;
}

double norm_error(const at::Tensor& a, const at::Tensor& b) { return a.sub(b).norm().item<double>() / b.norm().item<double>(); }

class Fp8Pass : public ::testing::TestWithParam<Architecture> {
 protected:
  GptConfig config_ = config_of(GetParam());
};

// 8 bits move losses and gradients, but not far. A product's errors are 4 to 6 % of it (ops/fp8_test.cpp), and a gradient goes
// through several.
TEST_P(Fp8Pass, IsNearThePassInBfloat16) {
  constexpr double kLossTolerance = 0.02, kGradientTolerance = 0.2;
  const Result expected = pass(config_, at::kCPU, false), found = pass(config_, at::kCPU, true);
  EXPECT_FALSE(found.losses.equal(expected.losses));
  const double loss = expected.losses.mean().item<double>();
  EXPECT_NEAR(found.losses.mean().item<double>(), loss, kLossTolerance * loss);
  for (const auto& [name, gradient] : expected.gradients) {
    if (gradient.dim() != 2 || gradient.norm().item<double>() == 0.0) continue;
    EXPECT_LT(norm_error(found.gradients.at(name), gradient), kGradientTolerance) << name;
  }
}

TEST_P(Fp8Pass, RecomputesTheSame) {
  const Result expected = pass(config_, at::kCPU, true), found = pass(config_, at::kCPU, true, /*recompute=*/true);
  EXPECT_TRUE(found.losses.equal(expected.losses));
  for (const auto& [name, gradient] : expected.gradients) EXPECT_TRUE(found.gradients.at(name).equal(gradient)) << name;
}

// Branches that begin with zeros add nothing, so that a first pass shows what the head and the embedding compute.
TEST_P(Fp8Pass, TheHeadStaysInBfloat16) {
  const Result expected = pass(config_, at::kCPU, false, false, /*zeros=*/true),
               found = pass(config_, at::kCPU, true, false, true);
  EXPECT_TRUE(found.losses.equal(expected.losses));
  for (const char* name : {"lm_head.weight", "model.embed_tokens.weight"}) {
    EXPECT_TRUE(found.gradients.at(name).equal(expected.gradients.at(name))) << name;
  }
}

TEST_P(Fp8Pass, EvaluationStaysInBfloat16) {
  Gpt model(config_, at::kBFloat16);
  model.init_weights(7);
  const at::Tensor expected = model.token_losses(ids(1), ids(2));
  model.set_fp8(true);
  EXPECT_TRUE(model.token_losses(ids(1), ids(2)).equal(expected));
}

// Widths of the matrices fit, but not the number of tokens.
TEST_P(Fp8Pass, OtherNumbersOfTokensAreInBfloat16) {
  const auto losses_of = [&](bool fp8) {
    Gpt model(config_, at::kBFloat16);
    model.init_weights(7);
    model.set_fp8(fp8);
    const at::Tensor few = ids(1).narrow(0, 0, 1).narrow(1, 0, 10).contiguous();
    return model.forward_backward(few, few, at::full({1, 10}, 0.1));
  };
  EXPECT_TRUE(losses_of(true).equal(losses_of(false)));
}

// Sums in another order move numbers by a rounding to bfloat16, and then some of them to another number of 8 bits, a sixteenth or
// an eighth away. After a few products the roundings of both passes are as independent of each other as two of them, so that
// their difference can be sqrt(2) times the error of either: on a CPU, passes in float32 and in bfloat16 differ by 6 to 17 %, as
// each does from the pass without 8 bits. The GPU's error must be as large as the CPU's, and the difference no larger than that.
TEST_P(Fp8Pass, OnAGpuAsOnACpu) {
  if (ops::cuda_devices() == 0 || !ops::has_fp8(at::Device(at::kCUDA, 0))) GTEST_SKIP() << "no GPU with products in 8 bits";
  constexpr double kLossTolerance = 0.005, kSpread = 1.3;  // how far two such errors are apart
  const Result exact = pass(config_, at::kCPU, false), expected = pass(config_, at::kCPU, true),
               found = pass(config_, at::Device(at::kCUDA, 0), true);
  const double loss = expected.losses.mean().item<double>();
  EXPECT_NEAR(found.losses.mean().item<double>(), loss, kLossTolerance * loss);
  for (const auto& [name, gradient] : exact.gradients) {
    if (gradient.dim() != 2 || gradient.norm().item<double>() == 0.0) continue;
    const double error = norm_error(expected.gradients.at(name), gradient);
    EXPECT_LT(norm_error(found.gradients.at(name), gradient), kSpread * error) << name;
    EXPECT_LT(norm_error(found.gradients.at(name), expected.gradients.at(name)), std::sqrt(2.0) * kSpread * error) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, Fp8Pass,
                         ::testing::Values(Architecture::kNanochat2025_12, Architecture::kNanochat2026_07));

}  // namespace
}  // namespace nanochat
