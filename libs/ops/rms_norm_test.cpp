#include "ops/rms_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include <gtest/gtest.h>

#include "ops/reference.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::relative_error;
using testing::tolerance;

constexpr double kEps = 1e-6;

at::Tensor plain(const at::Tensor& x) { return x.mul(x.square().mean(-1, true).add(kEps).rsqrt()); }

class RmsNorm : public ::testing::TestWithParam<std::tuple<at::ScalarType, std::int64_t>> {
 protected:
  at::ScalarType dtype_ = std::get<0>(GetParam());
  std::int64_t width_ = std::get<1>(GetParam());
  at::Tensor random() const { return at::randn({37, width_}).mul(3).to(dtype_); }
};

TEST_P(RmsNorm, ForwardAndBackwardEqualAutograd) {
  const at::Tensor x = random(), dy = random();
  const at::Tensor leaf = x.to(at::kDouble).requires_grad_(true);
  const at::Tensor expected = plain(leaf);
  expected.backward(dy.to(at::kDouble));

  at::Tensor y = at::empty_like(x), rstd = at::empty({37});
  rms_norm(x, y, rstd, kEps);
  EXPECT_LT(relative_error(y, expected.detach()), tolerance(dtype_));
  EXPECT_LT(relative_error(rstd, x.to(at::kDouble).square().mean(-1).add(kEps).rsqrt()), 1e-5);

  at::Tensor dx = at::empty_like(x);
  rms_norm_backward(dy, y, rstd, dx, /*accumulate=*/false);
  EXPECT_LT(relative_error(dx, leaf.grad()), 2 * tolerance(dtype_));
  const at::Tensor before = random();
  at::Tensor sum = before.clone();
  rms_norm_backward(dy, y, rstd, sum, /*accumulate=*/true);
  EXPECT_LT(relative_error(sum, leaf.grad().add(before.to(at::kDouble))), 2 * tolerance(dtype_));
}

TEST_P(RmsNorm, AddsABranchOnTheWay) {
  const at::Tensor branch = random(), before = random();
  at::Tensor residual = before.clone(), y = at::empty_like(branch), rstd = at::empty({37});
  add_rms_norm(residual, branch, y, rstd, kEps);
  EXPECT_TRUE(at::equal(residual, before.add(branch)));
  at::Tensor expected = at::empty_like(y), expected_rstd = at::empty({37});
  rms_norm(residual, expected, expected_rstd, kEps);
  EXPECT_TRUE(at::equal(y, expected));
  EXPECT_TRUE(at::equal(rstd, expected_rstd));
  at::Tensor plain_residual = before.clone(), plain_y = at::empty_like(branch), plain_rstd = at::empty({37});
  reference::add_rms_norm(plain_residual, branch, plain_y, plain_rstd, kEps);
  EXPECT_TRUE(at::equal(plain_residual, residual));
  EXPECT_LT(relative_error(plain_y, y), tolerance(dtype_));
  EXPECT_LT(relative_error(plain_rstd, rstd), 1e-5);
  at::Tensor none;
  residual.copy_(before);
  add_rms_norm(residual, branch, y, none, kEps);
  EXPECT_TRUE(at::equal(y, expected));
}

TEST_P(RmsNorm, AddsABranchToAFloat32Residual) {
  const at::Tensor branch = random(), before = random().to(at::kFloat) / 3;
  at::Tensor residual = before.clone(), y = at::empty_like(branch), rstd = at::empty({37});
  add_rms_norm(residual, branch, y, rstd, kEps);
  const at::Tensor sum = before + branch.to(at::kFloat);
  EXPECT_TRUE(at::equal(residual, sum)) << "not rounded";
  at::Tensor expected = at::empty_like(sum), expected_rstd = at::empty({37});
  rms_norm(sum, expected, expected_rstd, kEps);
  EXPECT_LT(relative_error(y, expected), tolerance(dtype_));
  EXPECT_LT(relative_error(rstd, expected_rstd), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNorm,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kBFloat16),
                                            ::testing::Values(3, 7, 16, 33, 256, 1280)));

TEST(RmsNormEdges, ZeroRowsStayZeroAndNaNsStay) {
  at::Tensor x = at::zeros({2, 32}), y = at::empty({2, 32}), rstd = at::empty({2});
  x.select(0, 1).narrow(0, 5, 1).fill_(std::numeric_limits<double>::quiet_NaN());
  rms_norm(x, y, rstd, kEps);
  EXPECT_EQ(y.select(0, 0).abs().max().item<double>(), 0.0);
  EXPECT_TRUE(at::isnan(y.select(0, 1)).all().item<bool>());
}

TEST(RmsNormEdges, RefusesWhatDoesNotFit) {
  at::Tensor y = at::empty({2, 16}), rstd = at::empty({2});
  EXPECT_THROW(rms_norm(at::zeros({2, 32}), y, rstd, kEps), c10::Error);
  EXPECT_THROW(rms_norm(at::zeros({2, 16}, at::kDouble), y, rstd, kEps), c10::Error);
  EXPECT_THROW(rms_norm(at::zeros({16, 2}).t(), y, rstd, kEps), c10::Error);
  at::Tensor residual = at::zeros({2, 32});
  EXPECT_THROW(add_rms_norm(residual, y, y, rstd, kEps), c10::Error);
  EXPECT_THROW(rms_norm_backward(y, y, at::zeros({3}), residual, false), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
