#include "optim/adamw.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

constexpr double kTolerance = 1e-6;  // float32 against the same formulas in float64

// torch.optim.AdamW's arithmetic in float64.
struct Plain {
  at::Tensor p, m, v;
  void step(const at::Tensor& g, std::int64_t t, double lr, const AdamWOptions& o) {
    p.mul_(1.0 - lr * o.weight_decay);
    m.mul_(o.beta1).add_(g, 1.0 - o.beta1);
    v.mul_(o.beta2).addcmul_(g, g, 1.0 - o.beta2);
    const at::Tensor denominator = v.sqrt().div_(std::sqrt(1.0 - std::pow(o.beta2, t))).add_(o.eps);
    p.addcdiv_(m, denominator, -lr / (1.0 - std::pow(o.beta1, t)));
  }
};

TEST(AdamW, FollowsTheFormulasOverManySteps) {
  for (const double decay : {0.0, 0.1}) {
    AdamWOptions options;
    options.weight_decay = decay;
    at::Tensor p = at::randn({7, 33}), m = at::zeros({7, 33}), v = at::zeros({7, 33});
    Plain plain{p.to(at::kDouble), m.to(at::kDouble), v.to(at::kDouble)};
    for (std::int64_t t = 1; t <= 20; ++t) {
      const at::Tensor g = at::randn({7, 33});
      adamw_step(p, g, m, v, p, t, 0.01, 0.5, options);
      plain.step(g.to(at::kDouble).mul(0.5), t, 0.01, options);
    }
    EXPECT_LT(p.to(at::kDouble).sub(plain.p).abs().max().item<double>(), 20 * kTolerance);
    EXPECT_LT(m.to(at::kDouble).sub(plain.m).abs().max().item<double>(), kTolerance);
    EXPECT_LT(v.to(at::kDouble).sub(plain.v).abs().max().item<double>(), kTolerance);
  }
}

TEST(AdamW, KeepsTheComputeCopyInStep) {
  at::Tensor p = at::randn({5, 17}), m = at::zeros({5, 17}), v = at::zeros({5, 17});
  at::Tensor copy = at::empty({5, 17}, at::kBFloat16);
  adamw_step(p, at::randn({5, 17}), m, v, copy, 1, 0.1, 1.0, {});
  EXPECT_TRUE(at::equal(copy, p.to(at::kBFloat16)));
}

TEST(AdamW, RefusesWhatDoesNotFit) {
  at::Tensor p = at::randn({5, 4}), m = at::zeros({5, 4}), v = at::zeros({5, 4});
  EXPECT_THROW(adamw_step(p, at::randn({4, 5}), m, v, p, 1, 0.1, 1.0, {}), c10::Error);
  EXPECT_THROW(adamw_step(p, at::randn({5, 4}), m, v, p, 0, 0.1, 1.0, {}), c10::Error);
}

}  // namespace
}  // namespace nanochat
