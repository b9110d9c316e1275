#include "ops/rope.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include <gtest/gtest.h>

#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::random_tensor;
using testing::relative_error;
using testing::tolerance;

constexpr double kEps = 1e-6;
constexpr std::int64_t kBatch = 2, kTime = 9, kHeads = 4, kKvHeads = 2;

TEST(RopeTable, HoldsCosinesAndSinesOfTheFrequencies) {
  const RopeTable table = make_rope_table(50, 8, 10000.0, false);
  ASSERT_EQ(table.cos.sizes(), (std::vector<std::int64_t>{50, 4}));
  for (const std::int64_t position : {0, 1, 49}) {
    for (std::int64_t i = 0; i < 4; ++i) {
      const double angle = static_cast<double>(position) * std::pow(10000.0, -2.0 * static_cast<double>(i) / 8.0);
      EXPECT_NEAR(table.cos.select(0, position).select(0, i).item<double>(), std::cos(angle), 1e-5);
      EXPECT_NEAR(table.sin.select(0, position).select(0, i).item<double>(), std::sin(angle), 1e-5);
    }
  }
  const RopeTable rounded = make_rope_table(50, 8, 10000.0, true);
  EXPECT_TRUE(at::equal(rounded.cos, table.cos.to(at::kBFloat16).to(at::kFloat)));
  EXPECT_FALSE(at::equal(rounded.cos, table.cos));
}

// Heads [first, first + n) of qkv, rotated from position `start` on and normalised.
at::Tensor plain(const at::Tensor& qkv, const RopeTable& table, std::int64_t d, std::int64_t first, std::int64_t n,
                 std::int64_t start) {
  const at::Tensor x = qkv.view({kBatch, kTime, -1, d}).narrow(2, first, n);
  const auto rows = [&](const at::Tensor& t) { return t.narrow(0, start, kTime).to(at::kDouble).view({1, kTime, 1, d / 2}); };
  const at::Tensor a = x.narrow(3, 0, d / 2), b = x.narrow(3, d / 2, d / 2), cos = rows(table.cos), sin = rows(table.sin);
  const at::Tensor y = at::cat({a.mul(cos).add(b.mul(sin)), b.mul(cos).sub(a.mul(sin))}, 3);
  return y.mul(y.square().mean(-1, true).add(kEps).rsqrt());
}

class RopeQkNorm : public ::testing::TestWithParam<std::tuple<at::ScalarType, std::int64_t, bool>> {};

TEST_P(RopeQkNorm, ForwardAndBackwardEqualAutograd) {
  const auto [dtype, d, rounded] = GetParam();
  const RopeTable table = make_rope_table(32, d, 10000.0, rounded);
  const at::Tensor qkv = random_tensor({kBatch * kTime, (kHeads + 2 * kKvHeads) * d}, dtype, 1);
  const at::Tensor dq = random_tensor({kBatch, kTime, kHeads, d}, dtype, 2),
                   dk = random_tensor({kBatch, kTime, kKvHeads, d}, dtype, 3);
  const at::Tensor leaf = qkv.to(at::kDouble).requires_grad_(true);
  const at::Tensor expected_q = plain(leaf, table, d, 0, kHeads, 0), expected_k = plain(leaf, table, d, kHeads, kKvHeads, 0);
  expected_q.mul(dq.to(at::kDouble)).sum().add(expected_k.mul(dk.to(at::kDouble)).sum()).backward();

  at::Tensor q = at::empty(dq.sizes(), dtype), k = at::empty(dk.sizes(), dtype);
  at::Tensor rstd = at::empty({kBatch, kTime, kHeads + kKvHeads});
  rope_qk_norm(qkv, table, {}, q, k, rstd, kEps);
  EXPECT_LT(relative_error(q, expected_q.detach()), tolerance(dtype));
  EXPECT_LT(relative_error(k, expected_k.detach()), tolerance(dtype));

  at::Tensor dqkv = at::full(qkv.sizes(), 7.0, qkv.options());
  const at::Tensor dv = at::randn({kBatch, kTime, kKvHeads, d}).to(dtype);
  rope_qk_norm_backward(dq, dk, dv, q, k, rstd, table, dqkv);
  const std::int64_t qk = (kHeads + kKvHeads) * d;
  // A gradient is what the norm leaves of rstd * dy, at d = 2 a small part: the rounding of q and k is that of the whole.
  const double whole = at::cat({dq, dk}, 2).to(at::kDouble).mul(rstd.unsqueeze(-1)).abs().max().item<double>();
  const at::Tensor error = dqkv.narrow(1, 0, qk).to(at::kDouble).sub(leaf.grad().narrow(1, 0, qk)).abs();
  EXPECT_LT(error.max().item<double>() / whole, tolerance(dtype));
  EXPECT_TRUE(dqkv.narrow(1, qk, kKvHeads * d).equal(dv.view({kBatch * kTime, kKvHeads * d})));
}

TEST_P(RopeQkNorm, RowsBeginAtTheirOwnPositions) {
  const auto [dtype, d, rounded] = GetParam();
  const RopeTable table = make_rope_table(32, d, 10000.0, rounded);
  const at::Tensor qkv = at::randn({kBatch * kTime, (kHeads + 2 * kKvHeads) * d}).to(dtype);
  at::Tensor q = at::empty({kBatch, kTime, kHeads, d}, dtype), k = at::empty({kBatch, kTime, kKvHeads, d}, dtype), rstd;
  at::Tensor start = at::zeros({kBatch}, at::kLong);
  start.narrow(0, 1, 1).fill_(20);
  rope_qk_norm(qkv, table, start, q, k, rstd, kEps);
  for (std::int64_t b = 0; b < kBatch; ++b) {
    const at::Tensor expected = plain(qkv.to(at::kDouble), table, d, 0, kHeads, b * 20);
    EXPECT_LT(relative_error(q.select(0, b), expected.select(0, b)), tolerance(dtype)) << b;
  }
  start.fill_(24);  // 24 + 9 positions end beyond the table of 32
  EXPECT_THROW(rope_qk_norm(qkv, table, start, q, k, rstd, kEps), c10::Error);
  EXPECT_THROW(rope_qk_norm(qkv.narrow(0, 0, 3), table, {}, q, k, rstd, kEps), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(Cases, RopeQkNorm,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kBFloat16), ::testing::Values(2, 10, 64, 128),
                                            ::testing::Bool()));

}  // namespace
}  // namespace nanochat::ops
