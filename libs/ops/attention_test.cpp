#include "ops/attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::relative_error;

constexpr double kFloatTolerance = 1e-5;
constexpr double kBfloatTolerance = 0.02;  // probabilities or outputs rounded to 8 bits, summed over keys

double tolerance(at::ScalarType dtype) { return dtype == at::kFloat ? kFloatTolerance : kBfloatTolerance; }

// Query i of row b sees keys [0, start[b] + i], of those the last window + 1.
at::Tensor plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& start,
                 const AttentionScope& scope = {}) {
  const std::int64_t group = q.size(2) / k.size(2);
  const at::Tensor keys = k.repeat_interleave(group, 2), values = v.repeat_interleave(group, 2);
  const at::Tensor scores = at::einsum("bqhd,bkhd->bhqk", {q, keys})
                                .mul(scope.scale / std::sqrt(static_cast<double>(q.size(3))));
  const at::Tensor last = start.view({-1, 1, 1, 1}).add(at::arange(q.size(1), at::kLong).view({1, 1, -1, 1}));
  const at::Tensor key = at::arange(k.size(1), at::kLong).view({1, 1, 1, -1});
  const at::Tensor unseen = key.gt(last).logical_or(key.lt(last.sub(scope.window.value_or(k.size(1)))));
  const at::Tensor weights = scores.masked_fill(unseen, -std::numeric_limits<double>::infinity()).softmax(-1);
  return at::einsum("bhqk,bkhd->bqhd", {weights, values});
}

struct Case {
  at::ScalarType dtype;
  std::int64_t batch, time, n_head, n_kv_head, d;
};

class CausalAttention : public ::testing::TestWithParam<Case> {};

TEST_P(CausalAttention, ForwardAndBackwardEqualAutograd) {
  const Case& c = GetParam();
  const at::Tensor q = at::randn({c.batch, c.time, c.n_head, c.d}).to(c.dtype);
  // Values lie inside the fused projection: rows further apart than they are long.
  const at::Tensor fused = at::randn({c.batch, c.time, 3 * c.n_kv_head, c.d}).to(c.dtype);
  const at::Tensor k = fused.narrow(2, 0, c.n_kv_head).contiguous(), v = fused.narrow(2, 2 * c.n_kv_head, c.n_kv_head);
  const at::Tensor dout = at::randn(q.sizes()).to(c.dtype);
  at::Tensor q64 = q.to(at::kDouble).requires_grad_(true), k64 = k.to(at::kDouble).requires_grad_(true),
             v64 = v.to(at::kDouble).contiguous().requires_grad_(true);
  const at::Tensor expected = plain(q64, k64, v64, at::full({c.batch}, 0, at::kLong));
  expected.backward(dout.to(at::kDouble));

  const AttentionForward forward = causal_attention(q, k, v);
  EXPECT_EQ(forward.out.scalar_type(), c.dtype);
  EXPECT_LT(relative_error(forward.out, expected.detach()), tolerance(c.dtype));
  const AttentionBackward backward = causal_attention_backward(dout, q, k, v, forward);
  EXPECT_LT(relative_error(backward.dq, q64.grad()), tolerance(c.dtype));
  EXPECT_LT(relative_error(backward.dk, k64.grad()), tolerance(c.dtype));
  EXPECT_LT(relative_error(backward.dv, v64.grad()), tolerance(c.dtype));
}

INSTANTIATE_TEST_SUITE_P(Shapes, CausalAttention,
                         ::testing::Values(Case{at::kFloat, 2, 33, 4, 4, 16}, Case{at::kFloat, 1, 100, 6, 2, 64},
                                           Case{at::kFloat, 3, 2, 2, 1, 32}, Case{at::kBFloat16, 2, 33, 4, 4, 16},
                                           Case{at::kBFloat16, 1, 256, 4, 2, 64}, Case{at::kBFloat16, 2, 130, 2, 2, 128}));

TEST(Attention, OneTokenIsItsOwnValueAndQueriesLearnNothing) {
  const at::Tensor q = at::randn({2, 1, 4, 8}), k = at::randn({2, 1, 4, 8}), v = at::randn({2, 1, 4, 8});
  const at::Tensor dout = at::randn({2, 1, 4, 8});
  const AttentionForward forward = causal_attention(q, k, v);
  EXPECT_LT(relative_error(forward.out, v), kFloatTolerance);
  const AttentionBackward backward = causal_attention_backward(dout, q, k, v, forward);
  EXPECT_LT(relative_error(backward.dv, dout), kFloatTolerance);
  EXPECT_LT(backward.dq.abs().max().item<double>(), kFloatTolerance);
  EXPECT_LT(backward.dk.abs().max().item<double>(), kFloatTolerance);
}

TEST_P(CausalAttention, WindowsAndScalesEqualAutograd) {
  const Case& c = GetParam();
  const at::Tensor q = at::randn({c.batch, c.time, c.n_head, c.d}).to(c.dtype), dout = at::randn(q.sizes()).to(c.dtype);
  const at::Tensor fused = at::randn({c.batch, c.time, 3 * c.n_kv_head, c.d}).to(c.dtype);
  const at::Tensor k = fused.narrow(2, 0, c.n_kv_head).contiguous(), v = fused.narrow(2, 2 * c.n_kv_head, c.n_kv_head);
  for (const std::int64_t window : {std::int64_t{0}, std::int64_t{1}, std::int64_t{31}, c.time - 2, c.time - 1, c.time + 5}) {
    const AttentionScope scope{.window = window, .scale = 1.44};
    at::Tensor q64 = q.to(at::kDouble).requires_grad_(true), k64 = k.to(at::kDouble).requires_grad_(true),
               v64 = v.to(at::kDouble).contiguous().requires_grad_(true);
    const at::Tensor expected = plain(q64, k64, v64, at::full({c.batch}, 0, at::kLong), scope);
    expected.backward(dout.to(at::kDouble));
    const AttentionForward forward = causal_attention(q, k, v, scope);
    EXPECT_EQ(forward.out.scalar_type(), c.dtype);
    EXPECT_LT(relative_error(forward.out, expected.detach()), tolerance(c.dtype)) << window;
    const AttentionBackward backward = causal_attention_backward(dout, q, k, v, forward, scope);
    EXPECT_LT(relative_error(backward.dv, v64.grad()), tolerance(c.dtype)) << window;
    if (window == 0) {  // one key each: its score has no gradient
      EXPECT_LT(backward.dq.abs().max().item<double>(), tolerance(c.dtype));
      EXPECT_LT(backward.dk.abs().max().item<double>(), tolerance(c.dtype));
      continue;
    }
    EXPECT_LT(relative_error(backward.dq, q64.grad()), tolerance(c.dtype)) << window;
    EXPECT_LT(relative_error(backward.dk, k64.grad()), tolerance(c.dtype)) << window;
  }
}

// A key outside every window may be anything: it is not read.
TEST(Attention, WindowsSkipWhatIsOutside) {
  constexpr std::int64_t kTime = 700, kWindow = 100;
  const at::Tensor q = at::randn({1, kTime, 2, 16}), k = at::randn({1, kTime, 2, 16}), v = at::randn({1, kTime, 2, 16});
  const AttentionScope scope{.window = kWindow};
  const auto last_rows = [](const at::Tensor& x) { return x.narrow(1, kTime - 60, 60); };
  const at::Tensor out = last_rows(causal_attention(q, k, v, scope).out), start = at::full({1}, kTime - 60, at::kLong);
  const at::Tensor by_cache = cached_attention(last_rows(q), k, v, start, scope);
  k.narrow(1, 0, 400).fill_(std::numeric_limits<double>::quiet_NaN());
  v.narrow(1, 0, 400).fill_(std::numeric_limits<double>::quiet_NaN());
  EXPECT_LT(relative_error(last_rows(causal_attention(q, k, v, scope).out), out), kFloatTolerance);
  EXPECT_TRUE(cached_attention(last_rows(q), k, v, start, scope).equal(by_cache));
  EXPECT_LT(relative_error(by_cache, out), kFloatTolerance);
}

class CachedAttention : public ::testing::TestWithParam<Case> {};

TEST_P(CachedAttention, EachRowSeesItsOwnPast) {
  const Case& c = GetParam();
  for (const std::int64_t queries : {1, 5, 21, 150}) {
    const at::Tensor q = at::randn({c.batch, queries, c.n_head, c.d}).to(c.dtype);
    const at::Tensor k = at::randn({c.batch, c.time + 160, c.n_kv_head, c.d}).to(c.dtype), v = at::randn(k.sizes()).to(c.dtype);
    const at::Tensor start = at::arange(c.batch, at::kLong).mul(3);
    const at::Tensor expected = plain(q.to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble), start);
    EXPECT_LT(relative_error(cached_attention(q, k, v, start), expected), tolerance(c.dtype)) << queries;
    for (const std::int64_t window : {0, 3, 40, 500}) {
      const AttentionScope scope{.window = window, .scale = 1.44};
      const at::Tensor in_window = plain(q.to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble), start, scope);
      EXPECT_LT(relative_error(cached_attention(q, k, v, start, scope), in_window), tolerance(c.dtype))
          << queries << " " << window;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CachedAttention,
                         ::testing::Values(Case{at::kFloat, 3, 20, 4, 4, 16}, Case{at::kFloat, 2, 70, 6, 2, 64},
                                           Case{at::kBFloat16, 3, 20, 4, 1, 64}));

TEST(Attention, PromptsComeToTheSameWhicheverWayIsPreferred) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor q = at::randn({2, 90, 4, 32}).to(dtype), k = at::randn({2, 90, 2, 32}).to(dtype),
                     v = at::randn(k.sizes()).to(dtype);
    const at::Tensor by_cache = cached_attention(q, k, v, at::zeros({2}, at::kLong));
    EXPECT_LT(relative_error(by_cache, causal_attention(q, k, v).out.to(at::kDouble)), tolerance(dtype));
    EXPECT_TRUE(prefers_cached_attention(q.narrow(1, 0, 1)));
    EXPECT_FALSE(dtype == at::kBFloat16 && prefers_cached_attention(q));
  }
}

TEST(Attention, RefusesShapesThatDoNotFit) {
  const at::Tensor q = at::randn({2, 5, 4, 8}), k = at::randn({2, 5, 4, 8});
  EXPECT_THROW(causal_attention(q, at::randn({2, 5, 3, 8}), at::randn({2, 5, 3, 8})), c10::Error);
  EXPECT_THROW(causal_attention(q, k, at::randn({2, 5, 2, 8})), c10::Error);
  EXPECT_THROW(causal_attention(q, at::randn({2, 5, 4, 16}), at::randn({2, 5, 4, 16})), c10::Error);
  EXPECT_THROW(causal_attention(q.view({2, 5, 32}), k, k), c10::Error);
  EXPECT_THROW(causal_attention(q, k, k, {.window = -1}), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
