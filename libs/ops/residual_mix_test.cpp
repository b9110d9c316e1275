#include "ops/residual_mix.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "ops/reference.h"
#include "ops/rms_norm.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::leaf;
using testing::random_tensor;
using testing::relative_error;
using testing::tolerance;

constexpr double kEps = 0x1p-23, kFloatTolerance = 1e-6;
constexpr std::int64_t kRows = 41, kWidth = 72;

class ResidualMix : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor random(std::uint64_t seed) const { return random_tensor({kRows, kWidth}, GetParam(), seed); }
  const at::Tensor a_ = at::full({1}, 1.1), b_ = at::full({1}, -0.3);
};

TEST_P(ResidualMix, EqualsAutograd) {
  const at::Tensor stream = random(1), branch = random(2), x0 = random(3), d = random(4);
  at::Tensor x = leaf(stream), added = leaf(branch), start = leaf(x0), a = leaf(a_), b = leaf(b_);
  const at::Tensor joined = x + added, mixed = a * joined + b * start;
  const at::Tensor expected = mixed * mixed.square().mean(-1, true).add(kEps).rsqrt();
  mixed.backward(d.to(at::kDouble));

  at::Tensor ours = stream.clone(), before = at::empty_like(stream), y = at::empty_like(stream), rstd = at::empty({kRows});
  residual_mix(ours, branch, x0, a_, b_, before, y, rstd, kEps);
  EXPECT_LT(relative_error(before, joined.detach()), tolerance(GetParam()));
  EXPECT_LT(relative_error(ours, mixed.detach()), tolerance(GetParam()));
  EXPECT_LT(relative_error(y, expected.detach()), tolerance(GetParam()));

  at::Tensor gradient = d.clone(), dx0 = at::full({kRows, kWidth}, 1.0), d_a = at::full({1}, 2.0), d_b = at::full({1}, 3.0);
  residual_mix_backward({}, gradient, before, x0, a_, b_, dx0, true, d_a, d_b);
  EXPECT_LT(relative_error(gradient, x.grad()), tolerance(GetParam()));
  EXPECT_LT(relative_error(dx0.sub(1.0), start.grad()), 2 * tolerance(GetParam()));
  EXPECT_NEAR(d_a.item<double>() - 2.0, a.grad().item<double>(), 20 * tolerance(GetParam()));
  EXPECT_NEAR(d_b.item<double>() - 3.0, b.grad().item<double>(), 20 * tolerance(GetParam()));
}

TEST_P(ResidualMix, EqualsTheReferenceWithAndWithoutWhatIsOptional) {
  const at::Tensor stream = random(1), branch = random(2), x0 = random(3);
  for (const bool with : {true, false}) {
    const at::Tensor added = with ? branch : at::Tensor();
    at::Tensor ours = stream.clone(), theirs = stream.clone(), y = at::empty_like(stream), plain_y = at::empty_like(stream);
    at::Tensor before = with ? at::empty_like(stream) : at::Tensor(),
               plain_before = with ? at::empty_like(stream) : at::Tensor();
    at::Tensor rstd = with ? at::empty({kRows}) : at::Tensor(), plain_rstd = with ? at::empty({kRows}) : at::Tensor();
    residual_mix(ours, added, x0, a_, b_, before, y, rstd, kEps);
    reference::residual_mix(theirs, added, x0, a_, b_, plain_before, plain_y, plain_rstd, kEps);
    EXPECT_LT(relative_error(ours, theirs), tolerance(GetParam()));
    EXPECT_LT(relative_error(y, plain_y), tolerance(GetParam()));
    at::Tensor gradient = branch.clone(), plain_gradient = branch.clone();
    at::Tensor dx0 = at::zeros({kRows, kWidth}), plain_dx0 = at::zeros({kRows, kWidth}), d_b = at::zeros({1}),
               plain_d_b = at::zeros({1});
    const at::Tensor d_a = with ? at::zeros({1}) : at::Tensor(), plain_d_a = with ? at::zeros({1}) : at::Tensor();
    residual_mix_backward({}, gradient, before, x0, a_, b_, dx0, true, d_a, d_b);
    reference::residual_mix_backward({}, plain_gradient, plain_before, x0, a_, b_, plain_dx0, true, plain_d_a, plain_d_b);
    EXPECT_LT(relative_error(gradient, plain_gradient), tolerance(GetParam()));
    EXPECT_LT(relative_error(dx0, plain_dx0), 1e-5);
    EXPECT_NEAR(d_b.item<double>(), plain_d_b.item<double>(), 1e-3);
    if (!with) continue;
    EXPECT_TRUE(at::equal(before, plain_before));
    EXPECT_LT(relative_error(rstd, plain_rstd), tolerance(GetParam()));
    EXPECT_NEAR(d_a.item<double>(), plain_d_a.item<double>(), 1e-3);
  }
}

// The stream of nanochat-2026-07 in training, float32 beside others in bfloat16.
TEST_P(ResidualMix, AFloat32StreamIsRoundedOnlyToWhatIsKept) {
  const at::Tensor stream = random_tensor({kRows, kWidth}, at::kFloat, 1), branch = random(2), x0 = random(3);
  const at::Tensor joined = stream + branch.to(at::kFloat), kept = joined.to(GetParam());
  for (const bool keep : {true, false}) {
    at::Tensor ours = stream.clone(), before = keep ? at::empty_like(branch) : at::Tensor(), y = at::empty_like(branch),
               rstd = at::empty({kRows});
    residual_mix(ours, branch, x0, a_, b_, before, y, rstd, kEps);
    const at::Tensor expected = (keep ? kept.to(at::kFloat) : joined) * a_ + x0.to(at::kFloat) * b_;
    EXPECT_LT(relative_error(ours, expected), kFloatTolerance) << keep;
    if (keep) {
      EXPECT_TRUE(at::equal(before, kept));
    }
    at::Tensor exact = at::empty_like(expected), scale = at::empty({kRows});
    rms_norm(expected, exact, scale, kEps);
    EXPECT_LT(relative_error(y, exact), tolerance(GetParam())) << keep;
    EXPECT_LT(relative_error(rstd, scale), kFloatTolerance) << keep;
    at::Tensor plain = stream.clone(), plain_before = keep ? at::empty_like(branch) : at::Tensor(), plain_y = at::empty_like(y);
    reference::residual_mix(plain, branch, x0, a_, b_, plain_before, plain_y, scale, kEps);
    EXPECT_LT(relative_error(plain, expected), kFloatTolerance) << keep;
  }
}

TEST_P(ResidualMix, TakesTheGradientOfANormAlong) {
  const at::Tensor before = random(1), x0 = random(2), dy = random(3), mixed = random(4);
  at::Tensor y = at::empty_like(mixed), rstd = at::empty({kRows});
  rms_norm(mixed, y, rstd, kEps);
  at::Tensor together = random(5), apart = random(5), dx0 = at::full({kRows, kWidth}, 7.0),
             expected = at::zeros({kRows, kWidth});
  const at::Tensor d_a = at::zeros({1}), d_b = at::zeros({1}), expected_a = at::zeros({1}), expected_b = at::zeros({1});
  residual_mix_backward({dy, y, rstd}, together, before, x0, a_, b_, dx0, /*accumulate=*/false, d_a, d_b);
  rms_norm_backward(dy, y, rstd, apart, /*accumulate=*/true);
  residual_mix_backward({}, apart, before, x0, a_, b_, expected, /*accumulate=*/true, expected_a, expected_b);
  EXPECT_TRUE(at::equal(together, apart));
  EXPECT_TRUE(at::equal(dx0, expected)) << "what was there is overwritten";
  EXPECT_TRUE(at::equal(d_a, expected_a) && at::equal(d_b, expected_b));
}

TEST_P(ResidualMix, DoesNotDependOnTheThreads) {
  const at::Tensor before = random_tensor({700, kWidth}, GetParam(), 5), x0 = random_tensor({700, kWidth}, GetParam(), 6);
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> sums;
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    at::Tensor gradient = before.clone(), dx0 = at::zeros(before.sizes()), d_a = at::zeros({1}), d_b = at::zeros({1});
    residual_mix_backward({}, gradient, before, x0, a_, b_, dx0, true, d_a, d_b);
    sums.insert(sums.end(), {d_a, d_b});
  }
  at::set_num_threads(threads);
  for (std::size_t i = 2; i < sums.size(); ++i) EXPECT_TRUE(at::equal(sums[i], sums[i % 2])) << i;
}

INSTANTIATE_TEST_SUITE_P(Types, ResidualMix, ::testing::Values(at::kFloat, at::kBFloat16));

TEST(ResidualMixEdges, RefusesWhatDoesNotFit) {
  at::Tensor stream = at::zeros({4, 8}), y = at::zeros({4, 8}), none, dx0 = at::zeros({4, 8});
  const at::Tensor one = at::full({1}, 1.0), x0 = at::zeros({4, 8});
  EXPECT_THROW(residual_mix(stream, at::zeros({3, 8}), x0, one, one, none, y, none, kEps), c10::Error);
  EXPECT_THROW(residual_mix(stream, none, x0.to(at::kBFloat16), one, one, none, y, none, kEps), c10::Error);
  EXPECT_THROW(residual_mix(stream, none, x0, at::zeros({2}), one, none, y, none, kEps), c10::Error);
  EXPECT_THROW(residual_mix_backward({}, stream, x0, x0, one, one, dx0, true, none, one), c10::Error)
      << "no place for the gradient of a";
  EXPECT_THROW(residual_mix_backward({x0, x0, none}, stream, none, x0, one, one, dx0, true, none, one), c10::Error)
      << "a norm without its statistics";
}

}  // namespace
}  // namespace nanochat::ops
