// Attention by our own kernels, where the processor has them: against the formula in double, at every edge of their
// tiles (8 queries, 32 keys, 64 queries a block).
#include "ops/cpu/attention_kernels.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/attention.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::leaf;
using testing::random_tensor;

// Norm of the difference over norm. Weights and gradients of scores are rounded to 8 bits before they are summed, and
// the result once more; measured at most 0.0031.
constexpr double kTolerance = 0.005;
constexpr double kSumTolerance = 3e-7;  // of logsumexp, which is float32 throughout

double norm_error(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor right = expected.detach();
  return (found.to(at::kDouble) - right).norm().item<double>() / right.norm().item<double>();
}

struct Reference {
  at::Tensor out, logsumexp;  // (B, T, NH, D), (B, NH, T)
};

Reference formula(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const std::int64_t group = q.size(2) / k.size(2), time = q.size(1);
  const auto heads = [&](const at::Tensor& x) { return x.repeat_interleave(group, 2).transpose(1, 2); };
  const double root = std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor future = at::ones({time, time}, at::kBool).triu(1);
  const at::Tensor scores = (at::matmul(q.transpose(1, 2), heads(k).transpose(2, 3)) / root)
                                .masked_fill(future, -std::numeric_limits<double>::infinity());
  return {at::matmul(scores.softmax(-1), heads(v)).transpose(1, 2), scores.logsumexp(-1)};
}

struct Shape {
  std::int64_t batch, time, n_head, n_kv_head, d;
};

void PrintTo(const Shape& s, std::ostream* out) {
  *out << "B" << s.batch << " T" << s.time << " NH" << s.n_head << " NKV" << s.n_kv_head << " D" << s.d;
}

struct Inputs {
  explicit Inputs(const Shape& s, double scale = 1.0)
      : q(random_tensor({s.batch, s.time, s.n_head, s.d}, at::kBFloat16, 1, scale)),
        k(random_tensor({s.batch, s.time, s.n_kv_head, s.d}, at::kBFloat16, 2, scale)),
        // Inside a fused projection, as in the model.
        v(random_tensor({s.batch, s.time, s.n_head + 2 * s.n_kv_head, s.d}, at::kBFloat16, 3)
              .narrow(2, s.n_head + s.n_kv_head, s.n_kv_head)),
        dout(random_tensor(q.sizes(), at::kBFloat16, 4)) {}
  at::Tensor q, k, v, dout;
};

class AttentionKernels : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    if (cpu::attention_kernels() == nullptr) GTEST_SKIP() << "this processor has no AVX512-BF16";
  }
};

TEST_P(AttentionKernels, EqualTheFormula) {
  const Inputs in(GetParam());
  const at::Tensor q = leaf(in.q), k = leaf(in.k), v = leaf(in.v);
  const Reference expected = formula(q, k, v);
  expected.out.backward(in.dout.to(at::kDouble));

  const AttentionForward forward = causal_attention(in.q, in.k, in.v);
  EXPECT_LT(norm_error(forward.out, expected.out), kTolerance);
  EXPECT_LT(norm_error(forward.logsumexp, expected.logsumexp), kSumTolerance);
  const AttentionBackward backward = causal_attention_backward(in.dout, in.q, in.k, in.v, forward);
  EXPECT_LT(norm_error(backward.dv, v.grad()), kTolerance);
  if (GetParam().time == 1) return;  // one key: no gradient through its weight, and nothing to compare with
  EXPECT_LT(norm_error(backward.dq, q.grad()), kTolerance);
  EXPECT_LT(norm_error(backward.dk, k.grad()), kTolerance);
}

TEST_P(AttentionKernels, TheFutureIsNotSeen) {
  const Inputs in(GetParam());
  const std::int64_t half = GetParam().time / 2, rest = GetParam().time - half;
  const AttentionForward before = causal_attention(in.q, in.k, in.v);
  at::Tensor k = in.k.clone(), v = in.v.clone();
  k.narrow(1, half, rest).fill_(3.0);
  v.narrow(1, half, rest).fill_(-5.0);
  const AttentionForward after = causal_attention(in.q, k, v);
  EXPECT_TRUE(before.out.narrow(1, 0, half).equal(after.out.narrow(1, 0, half)));
  EXPECT_TRUE(before.logsumexp.narrow(2, 0, half).equal(after.logsumexp.narrow(2, 0, half)));
}

TEST_P(AttentionKernels, RepeatBitForBitOnAnyNumberOfThreads) {
  const Inputs in(GetParam());
  const int threads = at::get_num_threads();
  const AttentionForward forward = causal_attention(in.q, in.k, in.v);
  const AttentionBackward backward = causal_attention_backward(in.dout, in.q, in.k, in.v, forward);
  at::set_num_threads(1);
  const AttentionForward alone = causal_attention(in.q, in.k, in.v);
  const AttentionBackward backward_alone = causal_attention_backward(in.dout, in.q, in.k, in.v, alone);
  at::set_num_threads(threads);
  EXPECT_TRUE(forward.out.equal(alone.out));
  EXPECT_TRUE(forward.logsumexp.equal(alone.logsumexp));
  EXPECT_TRUE(backward.dq.equal(backward_alone.dq));
  EXPECT_TRUE(backward.dk.equal(backward_alone.dk));
  EXPECT_TRUE(backward.dv.equal(backward_alone.dv));
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionKernels,
                         ::testing::Values(Shape{2, 1, 2, 1, 32}, Shape{1, 7, 1, 1, 32}, Shape{2, 8, 4, 2, 64},
                                           Shape{1, 9, 2, 2, 64}, Shape{1, 31, 3, 1, 32}, Shape{1, 32, 2, 2, 96},
                                           Shape{2, 33, 2, 1, 64}, Shape{1, 63, 2, 2, 64}, Shape{1, 64, 4, 4, 64},
                                           Shape{1, 65, 6, 3, 64}, Shape{2, 97, 2, 2, 128}, Shape{3, 128, 2, 1, 64},
                                           Shape{1, 250, 4, 4, 64}, Shape{1, 515, 2, 2, 128}, Shape{1, 200, 1, 1, 256}));

TEST(AttentionKernelsOfHugeScores, NeitherOverflowNorVanish) {
  if (cpu::attention_kernels() == nullptr) GTEST_SKIP() << "this processor has no AVX512-BF16";
  const Inputs in({1, 70, 2, 2, 64}, 30.0);
  const at::Tensor q = leaf(in.q), k = leaf(in.k), v = leaf(in.v);
  const Reference expected = formula(q, k, v);
  expected.out.backward(in.dout.to(at::kDouble));
  const AttentionForward forward = causal_attention(in.q, in.k, in.v);
  // Scores of some thousands: what float32 keeps of them in the exponent is 1e-4.
  EXPECT_LT(norm_error(forward.out, expected.out), kTolerance);
  const AttentionBackward backward = causal_attention_backward(in.dout, in.q, in.k, in.v, forward);
  EXPECT_LT(norm_error(backward.dv, v.grad()), kTolerance);
  EXPECT_TRUE(backward.dq.isfinite().all().item<bool>());
  EXPECT_TRUE(backward.dk.isfinite().all().item<bool>());
}

TEST(AttentionKernelsOfNan, ANanReachesWhatItTouches) {
  if (cpu::attention_kernels() == nullptr) GTEST_SKIP() << "this processor has no AVX512-BF16";
  const Inputs in({1, 40, 2, 2, 64});
  at::Tensor k = in.k.clone();
  k[0][35][1][0] = std::numeric_limits<double>::quiet_NaN();
  const AttentionForward forward = causal_attention(in.q, k, in.v);
  EXPECT_TRUE(forward.out[0].narrow(0, 35, 5).select(1, 1).isnan().all().item<bool>());
  EXPECT_FALSE(forward.out.select(2, 0).isnan().any().item<bool>());
  EXPECT_FALSE(forward.out[0].narrow(0, 0, 35).isnan().any().item<bool>());
  const AttentionBackward backward = causal_attention_backward(in.dout, in.q, k, in.v, forward);
  EXPECT_TRUE(backward.dq.isnan().any().item<bool>());
}

}  // namespace
}  // namespace nanochat::ops
