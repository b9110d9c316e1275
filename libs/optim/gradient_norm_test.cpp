#include "optim/gradient.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

std::vector<Parameter> parameters_with_gradients(std::initializer_list<at::Tensor> gradients) {
  std::vector<Parameter> parameters;
  for (const at::Tensor& gradient : gradients) parameters.push_back({{}, "p", gradient, gradient, gradient});
  return parameters;
}

TEST(GradientNorm, IsTheEuclideanNormOfAllTogether) {
  const at::Tensor a = at::randn({300, 1000}), b = at::randn({3});
  const double expected = std::sqrt(a.to(at::kDouble).square().sum().item<double>() +
                                    b.to(at::kDouble).square().sum().item<double>());
  EXPECT_NEAR(gradient_norm(parameters_with_gradients({a, b})), expected, 1e-6 * expected);
  EXPECT_EQ(gradient_norm(parameters_with_gradients({at::zeros({4})})), 0.0);
}

TEST(GradientNorm, IsNotFiniteWhenAnElementIsNot) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    at::Tensor a = at::randn({70000});
    a.narrow(0, 69999, 1).fill_(bad);
    EXPECT_FALSE(std::isfinite(gradient_norm(parameters_with_gradients({at::randn({5}), a}))));
  }
}

TEST(ClipScale, BringsTheNormDownAndNeverUp) {
  EXPECT_EQ(clip_scale(0.5, 1.0), 1.0);
  EXPECT_NEAR(clip_scale(4.0, 1.0), 0.25, 1e-6);
  EXPECT_LT(clip_scale(1.0, 1.0), 1.0);  // the 1e-6 of torch's clip_grad_norm_
  EXPECT_EQ(clip_scale(100.0, 0.0), 1.0);
}

}  // namespace
}  // namespace nanochat
