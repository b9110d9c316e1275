#include "model/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <gtest/gtest.h>

#include "ops/testing.h"

namespace nanochat {
namespace {

using ops::testing::random_tensor;
using ops::testing::relative_error;
using ops::testing::tolerance;

class LinearOf : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  LinearOf() {
    weight_.value = weight_.compute = random_tensor({24, 16}, GetParam(), 1);
    weight_.grad = at::ones({24, 16});
  }
  Weight weight_;
  at::Tensor x_ = random_tensor({10, 16}, GetParam(), 2), dy_ = random_tensor({10, 24}, GetParam(), 3);
};

TEST_P(LinearOf, EveryModeMultiplies) {
  const at::Tensor expected = x_.to(at::kDouble).matmul(weight_.compute.to(at::kDouble).t());
  for (const LinearMode mode : {LinearMode::kTraining, LinearMode::kInference, LinearMode::kBatchInvariant}) {
    at::Tensor y = at::empty({10, 24}, x_.options());
    Linear(weight_).forward(x_, y, mode);
    EXPECT_LT(relative_error(y, expected), tolerance(GetParam())) << static_cast<int>(mode);
  }
  EXPECT_EQ(Linear(weight_).out_features(), 24);
}

TEST_P(LinearOf, BackwardAddsToTheGradientOfATrainedWeight) {
  at::Tensor dx = at::empty({10, 16}, x_.options());
  Linear(weight_).backward(dy_, x_, dx, Linear::make_scratch(24 * 16, x_.options()));
  EXPECT_LT(relative_error(dx, dy_.to(at::kDouble).matmul(weight_.compute.to(at::kDouble))), tolerance(GetParam()));
  const at::Tensor expected = dy_.to(at::kDouble).t().matmul(x_.to(at::kDouble)).add(1.0);
  EXPECT_LT(relative_error(weight_.grad, expected), tolerance(GetParam()));
}

TEST_P(LinearOf, BackwardMakesNoGradientOfAFrozenWeight) {
  at::Tensor trained = at::empty({10, 16}, x_.options()), frozen = at::empty({10, 16}, x_.options());
  Linear(weight_).backward(dy_, x_, trained, Linear::make_scratch(24 * 16, x_.options()));
  weight_.grad = at::Tensor();
  Linear(weight_).backward(dy_, x_, frozen, at::Tensor());
  EXPECT_TRUE(frozen.equal(trained));
  EXPECT_FALSE(weight_.grad.defined());
}

INSTANTIATE_TEST_SUITE_P(Dtypes, LinearOf, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& param) { return std::string(at::toString(param.param)); });

}  // namespace
}  // namespace nanochat
