#include "ops/smear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "ops/reference.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::leaf;
using testing::random_tensor;
using testing::relative_error;
using testing::tolerance;

constexpr std::int64_t kRows = 60, kWidth = 40, kChannels = 24;

// Rows of 20 tokens; in the last a second document begins.
at::Tensor tokens_before() {
  at::Tensor before = at::full({kRows}, 7, at::kInt);
  for (const std::int64_t first : {0, 20, 40, 47}) before.narrow(0, first, 1).fill_(-1);
  return before;
}

class Smear : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  const at::Tensor x_ = random_tensor({kRows, kWidth}, GetParam(), 1),
                   gate_ = random_tensor({1, kChannels}, GetParam(), 2, 0.3);
  const at::Tensor lambda_ = at::full({1}, 0.4), before_ = tokens_before(), d_ = random_tensor({kRows, kWidth}, at::kFloat, 3);
  const at::Tensor none_;
};

TEST_P(Smear, EqualsAutograd) {
  at::Tensor x = leaf(x_), gate = leaf(gate_), lambda = leaf(lambda_);
  const at::Tensor s = at::matmul(x.narrow(1, 0, kChannels), gate.t()).sigmoid() * before_.ge(0).unsqueeze(1);
  const at::Tensor above = at::cat({at::zeros({1, kWidth}, at::kDouble), x.narrow(0, 0, kRows - 1)});
  const at::Tensor expected = x + lambda * s * above;
  expected.backward(d_.to(at::kDouble));

  at::Tensor y = at::empty_like(x_), ours = at::empty({kRows});
  smear(x_, none_, before_, gate_, lambda_, y, ours);
  EXPECT_LT(relative_error(y, expected.detach()), tolerance(GetParam()));
  EXPECT_LT(relative_error(ours, s.detach().squeeze(1)), 1e-5);

  at::Tensor dx = at::empty_like(x_), d_gate = at::full({1, kChannels}, 1.0), d_lambda = at::full({1}, 2.0);
  smear_backward(d_, x_, before_, gate_, lambda_, ours, dx, d_gate, d_lambda);
  EXPECT_LT(relative_error(dx, x.grad()), tolerance(GetParam()));
  EXPECT_LT(relative_error(d_gate.sub(1.0), gate.grad()), 1e-5);
  EXPECT_NEAR(d_lambda.item<double>() - 2.0, lambda.grad().item<double>(), 1e-4);
}

TEST_P(Smear, EqualsTheReference) {
  at::Tensor y = at::empty_like(x_), plain_y = at::empty_like(x_), s = at::empty({kRows}), plain_s = at::empty({kRows});
  smear(x_, none_, before_, gate_, lambda_, y, s);
  reference::smear(x_, none_, before_, gate_, lambda_, plain_y, plain_s);
  EXPECT_LT(relative_error(y, plain_y), tolerance(GetParam()));
  EXPECT_LT(relative_error(s, plain_s), 1e-5);
  at::Tensor dx = at::empty_like(x_), d_gate = at::zeros({1, kChannels}), d_lambda = at::zeros({1});
  at::Tensor plain_dx = at::empty_like(x_), plain_gate = at::zeros({1, kChannels}), plain_lambda = at::zeros({1});
  smear_backward(d_, x_, before_, gate_, lambda_, s, dx, d_gate, d_lambda);
  reference::smear_backward(d_, x_, before_, gate_, lambda_, s, plain_dx, plain_gate, plain_lambda);
  EXPECT_LT(relative_error(dx, plain_dx), tolerance(GetParam()));
  EXPECT_LT(relative_error(d_gate, plain_gate), 1e-5);
  EXPECT_NEAR(d_lambda.item<double>(), plain_lambda.item<double>(), 1e-4);
}

// In decoding the neighbour stands in another tensor; the result must be that of the row above, bit for bit.
TEST_P(Smear, TakesTheNeighbourFromElsewhere) {
  at::Tensor y = at::empty_like(x_), apart = at::empty_like(x_), none;
  smear(x_, none_, before_, gate_, lambda_, y, none);
  const at::Tensor previous = at::full({kRows, kWidth}, std::numeric_limits<double>::quiet_NaN(), GetParam());
  for (std::int64_t i = 1; i < kRows; ++i) {
    if (before_[i].item<int>() >= 0) previous[i].copy_(x_[i - 1]);
  }
  smear(x_, previous, before_, gate_, lambda_, apart, none);
  EXPECT_TRUE(at::equal(y, apart));
}

INSTANTIATE_TEST_SUITE_P(Types, Smear, ::testing::Values(at::kFloat, at::kBFloat16));

TEST(SmearEdges, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::zeros({4, 32}), before = at::full({4}, -1, at::kInt), gate = at::zeros({1, 24}),
                   lambda = at::zeros({1});
  at::Tensor y = at::zeros({4, 32}), none;
  EXPECT_THROW(smear(x, {}, before.to(at::kLong), gate, lambda, y, none), c10::Error);
  EXPECT_THROW(smear(x, {}, before, at::zeros({1, 33}), lambda, y, none), c10::Error);
  EXPECT_THROW(smear(x, {}, at::zeros({4}, at::kInt), gate, lambda, y, none), c10::Error) << "there is no row above the first";
  EXPECT_THROW(smear(x, at::zeros({3, 32}), before, gate, lambda, y, none), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
