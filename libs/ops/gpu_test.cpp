// The kernels of a GPU against the ATen reference on the CPU, and the reference on the GPU against itself on the CPU.
// Skipped with a message where no GPU is.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/device.h"
#include "ops/document_bounds.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/optimizer.h"
#include "ops/peak.h"
#include "ops/reference.h"
#include "ops/relu_squared.h"
#include "ops/residual_mix.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/smear.h"
#include "ops/testing.h"
#include "ops/value_embedding.h"

namespace nanochat::ops {
namespace {

using testing::kBf16Chain;
using testing::random_tensor;
using testing::relative_error;
using testing::tolerance;

constexpr double kFloatStreamTolerance = 1e-6;
constexpr double kEps = 1e-6;

at::Tensor on_gpu(const at::Tensor& x) { return x.to(at::kCUDA); }

class Gpu : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (cuda_devices() == 0) GTEST_SKIP() << (cuda_built() ? "no GPU on this machine" : "a build without CUDA");
  }
  at::ScalarType dtype_ = GetParam();
  // Of two results that were each rounded to the element type.
  double tolerance_ = 2 * tolerance(dtype_);
};

at::Tensor random_targets(std::int64_t n, std::int64_t vocab, std::uint64_t seed) {
  at::Tensor targets = at::empty({n}, at::kInt);
  Rng rng(seed);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto id = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(vocab)));
    targets.data_ptr<std::int32_t>()[i] = i % 5 == 3 ? -1 : id;
  }
  return targets;
}

TEST_P(Gpu, RmsNormForwardAndBackward) {
  // A warp a row; several warps a row; rows that 16-byte accesses do not fit; the widest.
  for (const std::int64_t width : {3, 33, 64, 768, 1280, 2048, 5120, 16384}) {
    if (dtype_ == at::kFloat && width == 16384) continue;
    const std::int64_t rows = width > 5000 ? 17 : 203;
    const at::Tensor x = random_tensor({rows, width}, dtype_, 1, 3.0), dy = random_tensor({rows, width}, dtype_, 2);
    const at::Tensor before = random_tensor({rows, width}, dtype_, 3);
    at::Tensor y = at::empty_like(x), rstd = at::empty({rows}), dx = at::empty_like(x);
    at::Tensor gpu_y = on_gpu(y), gpu_rstd = on_gpu(rstd), gpu_dx = on_gpu(dx);
    reference::rms_norm(x, y, rstd, kEps);
    rms_norm(on_gpu(x), gpu_y, gpu_rstd, kEps);
    EXPECT_LT(relative_error(gpu_y.cpu(), y), tolerance_) << width;
    EXPECT_LT(relative_error(gpu_rstd.cpu(), rstd), 1e-5) << width;

    at::Tensor residual = before.clone(), gpu_residual = on_gpu(before);
    reference::add_rms_norm(residual, x, y, rstd, kEps);
    add_rms_norm(gpu_residual, on_gpu(x), gpu_y, gpu_rstd, kEps);
    EXPECT_TRUE(gpu_residual.cpu().equal(residual)) << width;
    EXPECT_LT(relative_error(gpu_y.cpu(), y), tolerance_) << width;

    for (const bool accumulate : {false, true}) {
      dx.copy_(before);
      gpu_dx.copy_(before);
      reference::rms_norm_backward(dy, y, rstd, dx, accumulate);
      rms_norm_backward(on_gpu(dy), on_gpu(y), on_gpu(rstd), gpu_dx, accumulate);
      EXPECT_LT(relative_error(gpu_dx.cpu(), dx), tolerance_) << width << accumulate;
    }
  }
}

TEST_P(Gpu, RopeAndQkNormForwardAndBackward) {
  for (const std::int64_t d : {6, 8, 64, 96, 128, 256}) {
    for (const bool offset : {false, true}) {
      constexpr std::int64_t kBatch = 3, kTime = 19, kHeads = 4, kKvHeads = 2;
      const RopeTable table = make_rope_table(64, d, 10000.0, false);
      const RopeTable gpu_table = {on_gpu(table.cos), on_gpu(table.sin)};
      at::Tensor start;
      if (offset) start = at::zeros({kBatch}, at::kLong).add(5);
      const at::Tensor qkv = random_tensor({kBatch, kTime, (kHeads + 2 * kKvHeads) * d}, dtype_, 1);
      at::Tensor q = at::empty({kBatch, kTime, kHeads, d}, dtype_), k = at::empty({kBatch, kTime, kKvHeads, d}, dtype_);
      at::Tensor rstd = at::empty({kBatch, kTime, kHeads + kKvHeads});
      at::Tensor gpu_q = on_gpu(q), gpu_k = on_gpu(k), gpu_rstd = on_gpu(rstd);
      reference::rope_qk_norm(qkv, table, start, q, k, rstd, kEps);
      rope_qk_norm(on_gpu(qkv), gpu_table, start, gpu_q, gpu_k, gpu_rstd, kEps);
      EXPECT_LT(relative_error(gpu_q.cpu(), q), tolerance_) << d;
      EXPECT_LT(relative_error(gpu_k.cpu(), k), tolerance_) << d;
      EXPECT_LT(relative_error(gpu_rstd.cpu(), rstd), 1e-5) << d;
      if (offset) continue;

      const at::Tensor dq = random_tensor(q.sizes(), dtype_, 2), dk = random_tensor(k.sizes(), dtype_, 3);
      const at::Tensor dv = random_tensor(k.sizes(), dtype_, 4);
      at::Tensor dqkv = at::full(qkv.sizes(), 7.0, qkv.options()), gpu_dqkv = on_gpu(dqkv);
      reference::rope_qk_norm_backward(dq, dk, dv, q, k, rstd, table, dqkv);
      rope_qk_norm_backward(on_gpu(dq), on_gpu(dk), on_gpu(dv), on_gpu(q), on_gpu(k), on_gpu(rstd), gpu_table, gpu_dqkv);
      EXPECT_LT(relative_error(gpu_dqkv.cpu(), dqkv), tolerance_) << d;
    }
  }
}

TEST_P(Gpu, ReluSquaredForwardAndBackward) {
  for (const std::int64_t n : {1, 1000, 1 << 16}) {
    const at::Tensor x = random_tensor({n}, dtype_, 1), dy = random_tensor({n}, dtype_, 2);
    at::Tensor y = at::empty_like(x), dx = at::empty_like(x), gpu_y = on_gpu(y), gpu_dx = on_gpu(dy);
    reference::relu_squared(x, y);
    reference::relu_squared_backward(dy, y, dx);
    relu_squared(on_gpu(x), gpu_y);
    relu_squared_backward(gpu_dx, on_gpu(y), gpu_dx);  // in place
    EXPECT_TRUE(gpu_y.cpu().equal(y));
    EXPECT_LT(relative_error(gpu_dx.cpu(), dx), tolerance_);
  }
  at::Tensor y = on_gpu(at::zeros({1}, dtype_));
  relu_squared(on_gpu(at::full({1}, std::numeric_limits<double>::quiet_NaN(), dtype_)), y);
  EXPECT_TRUE(testing::any_nan(y));
}

TEST_P(Gpu, EmbeddingForwardAndBackward) {
  // Rows that 16-byte accesses fit, and do not; more columns than one group.
  for (const std::int64_t kWidth : {72, 33, 768}) {
    constexpr std::int64_t kRows = 97, kTokens = 1000;
    const at::Tensor table = random_tensor({kRows, kWidth}, dtype_, 1), dy = random_tensor({kTokens, kWidth}, dtype_, 2);
    const at::Tensor ids = random_targets(kTokens, 50, 3).clamp_min(0);  // id 0 often, ids above 50 never
    at::Tensor y = at::empty({kTokens, kWidth}, dtype_), gpu_y = on_gpu(y);
    at::Tensor gradient = random_tensor({kRows, kWidth}, at::kFloat, 4), gpu_gradient = on_gpu(gradient);
    reference::embedding(table, ids, y);
    embedding(on_gpu(table), on_gpu(ids), gpu_y);
    EXPECT_TRUE(gpu_y.cpu().equal(y));
    reference::embedding_backward(dy, ids, gradient);
    embedding_backward(on_gpu(dy), on_gpu(ids), gpu_gradient);
    EXPECT_LT(relative_error(gpu_gradient.cpu(), gradient), 1e-5);
    at::Tensor again = on_gpu(random_tensor({kRows, kWidth}, at::kFloat, 4));
    embedding_backward(on_gpu(dy), on_gpu(ids), again, order_tokens(on_gpu(ids)));
    EXPECT_TRUE(again.equal(gpu_gradient));  // bit for bit: no atomics
  }
}

TEST_P(Gpu, HeadLossesAndGradients) {
  struct Case {
    std::int64_t tokens, width, vocab, padded;
    double softcap;
    std::int64_t chunk_bytes;
  };
  for (const Case c : {Case{40, 64, 50, 64, 15.0, 0}, Case{33, 64, 1003, 1024, 0.0, 20000}, Case{9, 64, 300, 320, 60.0, 0},
                       Case{16, 64, 50304, 50304, 15.0, 0}, Case{5, 64, 100001, 100032, 15.0, 0}}) {
    const HeadOptions options{.vocab_size = c.vocab, .softcap = c.softcap, .chunk_bytes = c.chunk_bytes};
    const at::Tensor x = random_tensor({c.tokens, c.width}, dtype_, 1), w = random_tensor({c.padded, c.width}, dtype_, 2, 0.5);
    const at::Tensor scale = random_tensor({c.tokens}, at::kFloat, 3), targets = random_targets(c.tokens, c.vocab, 4);
    at::Tensor losses = at::empty({c.tokens}), dx = at::empty_like(x), dw = at::full(w.sizes(), 1.0, at::kFloat);
    at::Tensor gpu_losses = on_gpu(losses), gpu_dx = on_gpu(dx), gpu_dw = on_gpu(dw);
    // In float64, from the same rounded inputs.
    at::Tensor z = x.to(at::kDouble).matmul(w.to(at::kDouble).t()).to(at::kFloat);
    reference::softcap_cross_entropy(z, targets, scale, losses, c.vocab, c.softcap);
    head_losses_and_gradients(on_gpu(x), on_gpu(w), on_gpu(targets), on_gpu(scale), options, gpu_losses, gpu_dx, gpu_dw);
    const double bound = dtype_ == at::kFloat ? 2e-5 : kBf16Chain;
    EXPECT_LT(relative_error(gpu_losses.cpu(), losses), bound) << c.vocab;
    EXPECT_LT(relative_error(gpu_dx.cpu(), z.matmul(w.to(at::kFloat))), 2 * bound) << c.vocab;
    EXPECT_LT(relative_error(gpu_dw.cpu().sub(1.0), z.t().matmul(x.to(at::kFloat))), 2 * bound) << c.vocab;
    at::Tensor alone = on_gpu(at::zeros({c.tokens}));
    head_losses(on_gpu(x), on_gpu(w), on_gpu(targets), options, alone);
    EXPECT_TRUE(alone.equal(gpu_losses));
    if (const at::Tensor rows = rows_with_target(targets); rows.defined()) {
      at::Tensor picked_losses = on_gpu(losses.clone()), picked_dx = on_gpu(dx.clone()),
                 picked_dw = on_gpu(at::ones(w.sizes()));
      head_losses_and_gradients(on_gpu(x), on_gpu(w), on_gpu(targets), on_gpu(scale), options, picked_losses, picked_dx,
                                picked_dw, on_gpu(rows));
      EXPECT_LT(relative_error(picked_losses, gpu_losses), bound) << c.vocab;
      EXPECT_LT(relative_error(picked_dx, gpu_dx), 2 * bound) << c.vocab;
      EXPECT_LT(relative_error(picked_dw.sub(1.0), gpu_dw.sub(1.0)), 2 * bound) << c.vocab;
    }
    EXPECT_LT(relative_error(softcap_logits(on_gpu(x).matmul(on_gpu(w).t()), options).cpu(),
                             softcap_logits(x.matmul(w.t()), options)),
              bound);
  }
  at::Tensor losses = on_gpu(at::zeros({1}));
  head_losses(on_gpu(random_tensor({1, 64}, dtype_, 1)), on_gpu(random_tensor({64, 64}, dtype_, 2)),
              on_gpu(at::full({1}, 61, at::kInt)), {.vocab_size = 60}, losses);
  EXPECT_TRUE(testing::any_nan(losses)) << "a target outside the vocabulary";
}

TEST_P(Gpu, CausalAttention) {
  for (const std::int64_t d : {64, 128}) {
    for (const std::int64_t n_kv_head : {4, 2}) {
      const at::Tensor q = random_tensor({2, 130, 4, d}, dtype_, 1), k = random_tensor({2, 130, n_kv_head, d}, dtype_, 2);
      // As in the fused projection: strided rows.
      const at::Tensor v = random_tensor({2, 130, 3 * n_kv_head, d}, dtype_, 3).narrow(2, n_kv_head, n_kv_head);
      const at::Tensor dout = random_tensor(q.sizes(), dtype_, 4);
      const auto exact = [](const at::Tensor& x) { return x.to(at::kFloat); };
      const AttentionForward expected = causal_attention(exact(q), exact(k), exact(v));
      const AttentionBackward gradients = causal_attention_backward(exact(dout), exact(q), exact(k), exact(v), expected);
      const at::Tensor gpu_v = on_gpu(v.contiguous());
      const AttentionForward forward = causal_attention(on_gpu(q), on_gpu(k), gpu_v);
      const AttentionBackward backward = causal_attention_backward(on_gpu(dout), on_gpu(q), on_gpu(k), gpu_v, forward);
      const double bound = dtype_ == at::kFloat ? 1e-5 : kBf16Chain;
      EXPECT_LT(relative_error(forward.out.cpu(), expected.out), bound) << d;
      EXPECT_LT(relative_error(backward.dq.cpu(), gradients.dq), bound) << d;
      EXPECT_LT(relative_error(backward.dk.cpu(), gradients.dk), bound) << d;
      EXPECT_LT(relative_error(backward.dv.cpu(), gradients.dv), bound) << d;

      const at::Tensor start = at::zeros({2}, at::kLong).add(7);
      const at::Tensor query = q.narrow(1, 0, 3);
      EXPECT_LT(relative_error(cached_attention(on_gpu(query), on_gpu(k), gpu_v, start).cpu(),
                               cached_attention(exact(query), exact(k), exact(v), start)),
                bound);
    }
  }
}

TEST_P(Gpu, DocumentAttention) {
  for (const std::int64_t d : {64, 128}) {
    for (const std::int64_t n_kv_head : {4, 2}) {
      const at::Tensor q = random_tensor({2, 200, 4, d}, dtype_, 1), k = random_tensor({2, 200, n_kv_head, d}, dtype_, 2);
      const at::Tensor v = random_tensor({2, 200, 3 * n_kv_head, d}, dtype_, 3);
      const at::Tensor dout = random_tensor(q.sizes(), dtype_, 4);
      const auto values = [&](const at::Tensor& x) { return x.narrow(2, n_kv_head, n_kv_head); };  // as in the model
      const at::Tensor offsets = testing::offsets_of({1, 130, 69, 17, 32, 151});
      const DocumentBounds host = make_document_bounds(offsets, 2, 200, at::kCPU);
      const DocumentBounds bounds = make_document_bounds(offsets, 2, 200, at::kCUDA);
      const auto exact = [](const at::Tensor& x) { return x.to(at::kFloat); };
      const AttentionForward expected = causal_attention(exact(q), exact(k), values(exact(v)), {&host});
      const AttentionBackward gradients = causal_attention_backward(exact(dout), exact(q), exact(k), values(exact(v)), expected,
                                                                    {&host});
      const at::Tensor gpu_v = values(on_gpu(v));
      const AttentionForward forward = causal_attention(on_gpu(q), on_gpu(k), gpu_v, {&bounds});
      const AttentionBackward backward = causal_attention_backward(on_gpu(dout), on_gpu(q), on_gpu(k), gpu_v, forward,
                                                                   {&bounds});
      const double bound = dtype_ == at::kFloat ? 1e-5 : kBf16Chain;
      EXPECT_LT(relative_error(forward.out.cpu(), expected.out), bound) << d;
      EXPECT_LT(relative_error(backward.dq.cpu(), gradients.dq), bound) << d;
      EXPECT_LT(relative_error(backward.dk.cpu(), gradients.dk), bound) << d;
      EXPECT_LT(relative_error(backward.dv.cpu(), gradients.dv), bound) << d;
    }
  }
}

// Rows and documents, with windows that end inside them; the scale of nanochat-2026-07.
TEST_P(Gpu, WindowedAttention) {
  const at::Tensor offsets = testing::offsets_of({1, 130, 69, 17, 32, 151});
  const DocumentBounds host = make_document_bounds(offsets, 2, 200, at::kCPU);
  const DocumentBounds bounds = make_document_bounds(offsets, 2, 200, at::kCUDA);
  const auto exact = [](const at::Tensor& x) { return x.to(at::kFloat); };
  for (const std::int64_t n_kv_head : {4, 2}) {
    const std::int64_t d = n_kv_head == 4 ? 128 : 64;
    const at::Tensor q = random_tensor({2, 200, 4, d}, dtype_, 1), k = random_tensor({2, 200, n_kv_head, d}, dtype_, 2);
    const at::Tensor v = random_tensor({2, 200, 3 * n_kv_head, d}, dtype_, 3);
    const at::Tensor dout = random_tensor(q.sizes(), dtype_, 4);
    const auto values = [&](const at::Tensor& x) { return x.narrow(2, n_kv_head, n_kv_head); };  // as in the model
    for (const std::int64_t window : {0, 1, 63, 64, 100, 150, 198, 199}) {
      for (const bool documents : {false, true}) {
        const AttentionScope cpu{documents ? &host : nullptr, window, 1.44}, gpu{documents ? &bounds : nullptr, window, 1.44};
        const AttentionForward expected = causal_attention(exact(q), exact(k), values(exact(v)), cpu);
        const AttentionBackward gradients = causal_attention_backward(exact(dout), exact(q), exact(k), values(exact(v)),
                                                                      expected, cpu);
        const at::Tensor gpu_v = values(on_gpu(v));
        const AttentionForward forward = causal_attention(on_gpu(q), on_gpu(k), gpu_v, gpu);
        const AttentionBackward backward = causal_attention_backward(on_gpu(dout), on_gpu(q), on_gpu(k), gpu_v, forward, gpu);
        const double bound = dtype_ == at::kFloat ? 1e-5 : kBf16Chain;
        EXPECT_LT(relative_error(forward.out.cpu(), expected.out), bound) << window << documents;
        // With a window of 0 each query sees itself alone: its scores, and so q and k, have no gradient but rounding.
        if (window > 0) {
          EXPECT_LT(relative_error(backward.dq.cpu(), gradients.dq), bound) << window << documents;
          EXPECT_LT(relative_error(backward.dk.cpu(), gradients.dk), bound) << window << documents;
        }
        EXPECT_LT(relative_error(backward.dv.cpu(), gradients.dv), bound) << window << documents;
      }
    }
  }
}

TEST_P(Gpu, ResidualMixForwardAndBackward) {
  const at::Tensor a = at::full({1}, 1.1), b = at::full({1}, -0.3);
  // Those above 2048 take several accesses of a thread in float32 at least.
  for (const std::int64_t width : {3, 33, 64, 768, 1280, 2304, 5120}) {
    const std::int64_t rows = width > 5000 ? 17 : 203;
    const auto random = [&](std::uint64_t seed) { return random_tensor({rows, width}, dtype_, seed); };
    const at::Tensor branch = random(1), x0 = random(2), dy = random(3);
    for (const bool with : {true, false}) {
      // The stream is float32 in training, and else of the type of the others.
      at::Tensor exact = random(4).to(at::kFloat), exact_y = at::empty_like(branch), exact_before = at::empty_like(branch),
                 exact_rstd = at::empty({rows});
      at::Tensor gpu_exact = on_gpu(exact), gpu_exact_y = on_gpu(exact_y), gpu_exact_before = on_gpu(exact_before),
                 gpu_exact_rstd = on_gpu(exact_rstd);
      reference::residual_mix(exact, branch, x0, a, b, exact_before, exact_y, exact_rstd, kEps);
      residual_mix(gpu_exact, on_gpu(branch), on_gpu(x0), on_gpu(a), on_gpu(b), gpu_exact_before, gpu_exact_y, gpu_exact_rstd,
                   kEps);
      EXPECT_LT(relative_error(gpu_exact.cpu(), exact), kFloatStreamTolerance) << width;
      EXPECT_TRUE(gpu_exact_before.cpu().equal(exact_before)) << width;
      EXPECT_LT(relative_error(gpu_exact_y.cpu(), exact_y), tolerance_) << width;
      add_rms_norm(gpu_exact, on_gpu(branch), gpu_exact_y, gpu_exact_rstd, kEps);
      reference::add_rms_norm(exact, branch, exact_y, exact_rstd, kEps);
      EXPECT_LT(relative_error(gpu_exact.cpu(), exact), kFloatStreamTolerance) << width;
      EXPECT_LT(relative_error(gpu_exact_y.cpu(), exact_y), tolerance_) << width;

      at::Tensor stream = random(4), gpu_stream = on_gpu(stream), y = at::empty_like(stream), gpu_y = on_gpu(y);
      const at::Tensor added = with ? branch : at::Tensor(), gpu_added = with ? on_gpu(branch) : at::Tensor();
      at::Tensor before = with ? at::empty_like(stream) : at::Tensor(), gpu_before = with ? on_gpu(before) : at::Tensor();
      at::Tensor rstd = with ? at::empty({rows}) : at::Tensor(), gpu_rstd = with ? on_gpu(rstd) : at::Tensor();
      reference::residual_mix(stream, added, x0, a, b, before, y, rstd, kEps);
      residual_mix(gpu_stream, gpu_added, on_gpu(x0), on_gpu(a), on_gpu(b), gpu_before, gpu_y, gpu_rstd, kEps);
      EXPECT_LT(relative_error(gpu_stream.cpu(), stream), tolerance_) << width << with;
      EXPECT_LT(relative_error(gpu_y.cpu(), y), tolerance_) << width << with;
      if (with) {
        EXPECT_TRUE(gpu_before.cpu().equal(before)) << width;
        EXPECT_LT(relative_error(gpu_rstd.cpu(), rstd), tolerance_) << width;
      }

      at::Tensor gradient = random(5), gpu_gradient = on_gpu(gradient);
      at::Tensor dx0 = random_tensor({rows, width}, dtype_, 6), gpu_dx0 = on_gpu(dx0);
      const at::Tensor d_a = with ? at::full({1}, 2.0) : at::Tensor(), gpu_d_a = with ? on_gpu(d_a) : at::Tensor();
      const at::Tensor d_b = at::full({1}, 3.0), gpu_d_b = on_gpu(d_b);
      NormGradient norm, gpu_norm;
      if (with) norm = {dy, y, rstd};
      if (with) gpu_norm = {on_gpu(dy), on_gpu(y), on_gpu(rstd)};
      reference::residual_mix_backward(norm, gradient, before, x0, a, b, dx0, with, d_a, d_b);
      const at::Tensor same_before = with ? on_gpu(before) : at::Tensor();
      residual_mix_backward(gpu_norm, gpu_gradient, same_before, on_gpu(x0), on_gpu(a), on_gpu(b), gpu_dx0, with, gpu_d_a,
                            gpu_d_b);
      EXPECT_LT(relative_error(gpu_gradient.cpu(), gradient), tolerance_) << width << with;
      EXPECT_LT(relative_error(gpu_dx0.cpu(), dx0), tolerance_) << width << with;
      // Sums of products of normal numbers, whose deviation is the root of their number.
      const double near = tolerance_ * std::sqrt(static_cast<double>(rows * width));
      EXPECT_NEAR(gpu_d_b.item<double>(), d_b.item<double>(), near) << width << with;
      if (!with) continue;
      EXPECT_NEAR(gpu_d_a.item<double>(), d_a.item<double>(), near) << width;
    }
  }
}

TEST_P(Gpu, SmearForwardAndBackward) {
  constexpr std::int64_t kRows = 203;
  const at::Tensor lambda = at::full({1}, 0.4), none;
  at::Tensor before = at::full({kRows}, 7, at::kInt);
  for (const std::int64_t first : {0, 100, 101, 202}) before.narrow(0, first, 1).fill_(-1);
  for (const std::int64_t width : {24, 33, 768, 1280}) {
    const at::Tensor x = random_tensor({kRows, width}, dtype_, 1), gate = random_tensor({1, 24}, dtype_, 2, 0.3);
    at::Tensor y = at::empty_like(x), s = at::empty({kRows}), gpu_y = on_gpu(y), gpu_s = on_gpu(s);
    reference::smear(x, none, before, gate, lambda, y, s);
    smear(on_gpu(x), none, on_gpu(before), on_gpu(gate), on_gpu(lambda), gpu_y, gpu_s);
    EXPECT_LT(relative_error(gpu_y.cpu(), y), tolerance_) << width;
    EXPECT_LT(relative_error(gpu_s.cpu(), s), 1e-5) << width;
    const at::Tensor previous = random_tensor({kRows, width}, dtype_, 3);
    reference::smear(x, previous, before, gate, lambda, y, s);
    smear(on_gpu(x), on_gpu(previous), on_gpu(before), on_gpu(gate), on_gpu(lambda), gpu_y, gpu_s);
    EXPECT_LT(relative_error(gpu_y.cpu(), y), tolerance_) << width;

    const at::Tensor dy = random_tensor({kRows, width}, dtype_, 4);
    at::Tensor dx = at::empty_like(x), d_gate = at::full({1, 24}, 1.0), d_lambda = at::full({1}, 2.0);
    at::Tensor gpu_dx = on_gpu(dx), gpu_d_gate = on_gpu(d_gate), gpu_d_lambda = on_gpu(d_lambda);
    reference::smear_backward(dy, x, before, gate, lambda, s, dx, d_gate, d_lambda);
    smear_backward(on_gpu(dy), on_gpu(x), on_gpu(before), on_gpu(gate), on_gpu(lambda), on_gpu(s), gpu_dx, gpu_d_gate,
                   gpu_d_lambda);
    EXPECT_LT(relative_error(gpu_dx.cpu(), dx), tolerance_) << width;
    EXPECT_LT(relative_error(gpu_d_gate.cpu(), d_gate), 1e-5) << width;
    EXPECT_LT(relative_error(gpu_d_lambda.cpu(), d_lambda), 1e-4) << width;
  }
}

// Ids that many tokens have, over several shares of the sorted tokens, and ids that one has; tables of both types.
TEST_P(Gpu, ValueEmbeddingForwardAndBackward) {
  constexpr std::int64_t kTokens = 1000, kChannels = 12, kVocab = 300;
  at::Tensor ids = random_targets(kTokens, kVocab, 3).clamp_min(0);
  ids.narrow(0, 100, 300).fill_(17);
  ids.narrow(0, 700, 33).fill_(kVocab - 1);
  struct Case {
    std::int64_t heads, d, width;
  };
  for (const Case c :
       {Case{6, 128, 768}, Case{1, 64, 64}, Case{3, 96, 288}, Case{2, 256, 512}, Case{5, 20, 100}, Case{2, 7, 33}}) {
    for (const at::ScalarType table_type : {at::kFloat, dtype_}) {
      const at::Tensor fused = random_tensor({kTokens, 3 * c.heads, c.d}, dtype_, 1),
                       h = random_tensor({kTokens, c.width}, dtype_, 2);
      const at::Tensor gate = random_tensor({c.heads, kChannels}, dtype_, 3, 0.3);
      const at::Tensor table = random_tensor({kVocab, c.heads * c.d}, table_type, 4);
      const auto heads = [&](const at::Tensor& x) { return x.narrow(1, c.heads, c.heads); };
      const at::Tensor plain = fused.clone(), gpu = on_gpu(fused);
      at::Tensor g = at::empty({kTokens, c.heads}), gpu_g = on_gpu(g);
      reference::add_value_embedding(heads(plain), h, gate, table, ids, g);
      add_value_embedding(heads(gpu), on_gpu(h), on_gpu(gate), on_gpu(table), on_gpu(ids), gpu_g);
      EXPECT_LT(relative_error(gpu.cpu(), plain), tolerance_) << c.d;
      EXPECT_LT(relative_error(gpu_g.cpu(), g), 1e-5) << c.d;

      const at::Tensor dv = random_tensor(fused.sizes(), dtype_, 5);
      at::Tensor dh = random_tensor(h.sizes(), dtype_, 6), d_gate = at::full({c.heads, kChannels}, 1.0);
      at::Tensor d_table = random_tensor({kVocab, c.heads * c.d}, at::kFloat, 7), none;
      at::Tensor gpu_dh = on_gpu(dh), gpu_d_gate = on_gpu(d_gate), gpu_d_table = on_gpu(d_table);
      at::Tensor again_dh = on_gpu(dh), again_d_gate = on_gpu(d_gate), again_d_table = on_gpu(d_table);
      at::Tensor frozen_d_gate = on_gpu(d_gate), frozen_dh = on_gpu(dh);
      reference::add_value_embedding_backward(heads(dv), h, gate, table, ids, g, dh, d_gate, d_table);
      const auto run = [&](at::Tensor& to_h, at::Tensor& to_gate, at::Tensor& to_table) {
        add_value_embedding_backward(heads(on_gpu(dv)), on_gpu(h), on_gpu(gate), on_gpu(table), on_gpu(ids), on_gpu(g), to_h,
                                     to_gate, to_table);
      };
      run(gpu_dh, gpu_d_gate, gpu_d_table);
      EXPECT_LT(relative_error(gpu_dh.cpu(), dh), tolerance_) << c.d;
      EXPECT_LT(relative_error(gpu_d_gate.cpu(), d_gate), 2e-5) << c.d;
      EXPECT_LT(relative_error(gpu_d_table.cpu(), d_table), 1e-5) << c.d;
      run(again_dh, again_d_gate, again_d_table);
      run(frozen_dh, frozen_d_gate, none);
      EXPECT_TRUE(again_d_table.equal(gpu_d_table) && again_d_gate.equal(gpu_d_gate) && again_dh.equal(gpu_dh)) << "repeatable";
      EXPECT_TRUE(frozen_d_gate.equal(gpu_d_gate) && frozen_dh.equal(gpu_dh)) << "a table that is not trained";
    }
  }
}

TEST_P(Gpu, LinearWeightGradientsAddUp) {
  struct Case {
    std::int64_t tokens, out, in;
  };
  // The last two are computed in two parts on a GPU with 132 multiprocessors.
  for (const Case c : {Case{300, 96, 64}, Case{64, 5120, 1280}, Case{64, 1280, 5120}}) {
    const at::Tensor x = random_tensor({c.tokens, c.in}, dtype_, 1), dy = random_tensor({c.tokens, c.out}, dtype_, 2);
    at::Tensor dw = on_gpu(random_tensor({c.out, c.in}, at::kFloat, 3)), none;
    const at::Tensor expected = dw.cpu().add(dy.to(at::kFloat).t().matmul(x.to(at::kFloat)));
    linear_backward_weight(on_gpu(dy), on_gpu(x), dw, none);
    EXPECT_LT(relative_error(dw.cpu(), expected), 1e-5) << c.out;  // in float32 whatever the type of x
  }
}

// More tensors than one launch takes; several blocks of a tensor; sizes and addresses that 16-byte accesses do not fit.
TEST_P(Gpu, SumOfSquaresOfManyTensors) {
  std::vector<at::Tensor> tensors, on_device;
  double expected = 0.0;
  const auto add = [&](const at::Tensor& x, const at::Tensor& gpu_x) {
    tensors.push_back(x);
    on_device.push_back(gpu_x);
    expected += x.to(at::kDouble).square().sum().item<double>();
  };
  for (std::int64_t i = 0; i < 300; ++i) {
    const std::int64_t n = i == 7 ? 100003 : i == 8 ? 3 * 32768 : i == 9 ? 0 : 1 + 37 * i;
    const at::Tensor x = random_tensor({n + 1}, at::kFloat, static_cast<std::uint64_t>(i));
    const std::int64_t first = i % 2;
    add(x.narrow(0, first, n), on_gpu(x).narrow(0, first, n));
  }
  EXPECT_NEAR(sum_of_squares(on_device), expected, 1e-6 * expected);
  EXPECT_EQ(sum_of_squares(on_device), sum_of_squares(on_device)) << "repeatable";
}

TEST_P(Gpu, OptimizerSteps) {
  // More matrices than one launch takes; sizes that no block divides.
  constexpr std::int64_t kCount = 70, kRows = 33, kColumns = 65;
  MatrixList matrices, expected;
  for (std::int64_t i = 0; i < kCount; ++i) {
    const auto seed = static_cast<std::uint64_t>(i);
    const at::Tensor value = random_tensor({kRows, kColumns}, at::kFloat, 100 + seed);
    const at::Tensor gradient = random_tensor({kRows, kColumns}, at::kFloat, 200 + seed);
    const at::Tensor momentum = random_tensor({kRows, kColumns}, at::kFloat, 300 + seed);
    expected.add(value.clone(), gradient, momentum.clone(), value.to(at::kBFloat16));
    matrices.add(on_gpu(value), on_gpu(gradient), on_gpu(momentum), on_gpu(value.to(at::kBFloat16)));
  }
  for (const bool nesterov : {true, false}) {
    const at::Tensor directions = muon_directions(matrices, dtype_, 0.5, 0.9, nesterov);
    const at::Tensor wanted = reference::muon_directions(expected, dtype_, 0.5, 0.9, nesterov);
    EXPECT_LT(relative_error(directions.cpu(), wanted), tolerance_);
    muon_apply(matrices, on_gpu(wanted), 0.3);
    muon_apply(expected, wanted, 0.3);
  }
  for (std::size_t i = 0; i < matrices.value.size(); i += 23) {
    EXPECT_LT(relative_error(matrices.momentum[i].cpu(), expected.momentum[i]), 1e-6);
    EXPECT_LT(relative_error(matrices.value[i].cpu(), expected.value[i]), 1e-6);
    EXPECT_TRUE(matrices.compute[i].equal(matrices.value[i].to(at::kBFloat16)));
  }
  const double sum = sum_of_squares(matrices.gradient);
  EXPECT_NEAR(sum, reference::sum_of_squares(expected.gradient).item<double>(), 1e-6 * sum);

  const AdamWArguments step{.grad_scale = 0.5,
                            .beta1 = 0.8,
                            .beta2 = 0.95,
                            .learning_rate = 0.1,
                            .weight_decay = 0.01,
                            .eps = 1e-10,
                            .bias1 = 0.36,
                            .sqrt_bias2 = 0.3};
  for (const std::int64_t n : {1001, 4000}) {  // one element at a time, and four
    at::Tensor p = random_tensor({n}, at::kFloat, 1), m = random_tensor({n}, at::kFloat, 2);
    const at::Tensor g = random_tensor({n}, at::kFloat, 4);
    at::Tensor v = random_tensor({n}, at::kFloat, 3).square(), copy = p.to(at::kBFloat16);
    at::Tensor gpu_p = on_gpu(p), gpu_m = on_gpu(m), gpu_v = on_gpu(v), gpu_copy = on_gpu(copy);
    reference::adamw(p, g, m, v, copy, step);
    adamw(gpu_p, on_gpu(g), gpu_m, gpu_v, gpu_copy, step);
    EXPECT_LT(relative_error(gpu_p.cpu(), p), 1e-6) << n;
    EXPECT_LT(relative_error(gpu_m.cpu(), m), 1e-6) << n;
    EXPECT_LT(relative_error(gpu_v.cpu(), v), 1e-6) << n;
    EXPECT_TRUE(gpu_copy.equal(gpu_p.to(at::kBFloat16))) << n;
  }
}

TEST_P(Gpu, NorMuonSteps) {
  struct Case {
    std::int64_t count, rows, columns;
  };
  // Rows that 16-byte accesses do not fit, more matrices than one launch takes, tall and wide, gates.
  for (const Case c : {Case{70, 33, 65}, Case{3, 65, 33}, Case{2, 128, 128}, Case{2, 512, 128}, Case{3, 130, 520},
                       Case{2, 6, 12}, Case{1, 24, 12}}) {
    MatrixList matrices, expected;
    std::vector<at::Tensor> moments, expected_moments;
    const bool by_row = c.rows >= c.columns;
    for (std::int64_t i = 0; i < c.count; ++i) {
      const auto seed = static_cast<std::uint64_t>(i);
      const auto random = [&](std::uint64_t offset) { return random_tensor({c.rows, c.columns}, at::kFloat, offset + seed); };
      const at::Tensor value = random(100), gradient = random(200), momentum = random(300);
      const at::Tensor moment = random_tensor({by_row ? c.rows : 1, by_row ? 1 : c.columns}, at::kFloat, 400 + seed).square();
      const at::Tensor compute = i % 2 == 0 ? value.to(at::kBFloat16) : at::Tensor();
      const at::Tensor gpu_value = on_gpu(value), own = value.clone();
      expected.add(own, gradient, momentum.clone(), compute.defined() ? compute : own);
      matrices.add(gpu_value, on_gpu(gradient), on_gpu(momentum), compute.defined() ? on_gpu(compute) : gpu_value);
      expected_moments.push_back(moment.clone());
      moments.push_back(on_gpu(moment));
    }
    const at::Tensor directions = normuon_directions(matrices, dtype_, 0.5, 0.9);
    const at::Tensor wanted = reference::normuon_directions(expected, dtype_, 0.5, 0.9);
    EXPECT_LT(relative_error(directions.cpu(), wanted), 2 * tolerance_) << c.rows;  // rounded three times
    const NorMuonArguments step{.rate = 0.3, .weight_decay = 0.2, .beta2 = 0.9};
    normuon_apply(matrices, moments, on_gpu(wanted), step);
    reference::normuon_apply(expected, expected_moments, wanted, step);
    for (std::size_t i = 0; i < matrices.value.size(); i += 23) {
      EXPECT_LT(relative_error(matrices.momentum[i].cpu(), expected.momentum[i]), 1e-6) << c.rows;
      EXPECT_LT(relative_error(moments[i].cpu(), expected_moments[i]), 1e-5) << c.rows;
      EXPECT_LT(relative_error(matrices.value[i].cpu(), expected.value[i]), 1e-5) << c.rows;
      EXPECT_TRUE(matrices.compute[i].equal(matrices.value[i].to(matrices.compute[i].scalar_type()))) << c.rows;
    }
  }
}

TEST_P(Gpu, SaysWhatItIs) {
  const DeviceDescription gpu = describe_gpu(0);
  EXPECT_FALSE(gpu.name.empty());
  EXPECT_GE(gpu.major, 7);
  EXPECT_LE(gpu.free_bytes, gpu.total_bytes);
  EXPECT_GT(gpu.free_bytes, 0);
  EXPECT_GT(peak_flops(c10::Device(c10::kCUDA, 0), dtype_), 1e11);
  const at::Tensor held = on_gpu(at::zeros({1 << 20}));
  EXPECT_GE(peak_device_memory(held.device()), 4 << 20);
}

INSTANTIATE_TEST_SUITE_P(Types, Gpu, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& tested) { return std::string(at::toString(tested.param)); });

// The reference is what the kernels are held to, so it must agree with the CPU's kernels, which autograd vouches for.
TEST(Reference, AgreesWithTheCpusKernels) {
  const at::Tensor x = random_tensor({21, 48}, at::kFloat, 1), dy = random_tensor({21, 48}, at::kFloat, 2);
  at::Tensor y = at::empty_like(x), rstd = at::empty({21}), expected = at::empty_like(x), expected_rstd = at::empty({21});
  rms_norm(x, expected, expected_rstd, kEps);
  reference::rms_norm(x, y, rstd, kEps);
  EXPECT_LT(relative_error(y, expected), testing::kFloatTolerance);
  at::Tensor dx = at::empty_like(x), expected_dx = at::empty_like(x);
  rms_norm_backward(dy, expected, expected_rstd, expected_dx, false);
  reference::rms_norm_backward(dy, y, rstd, dx, false);
  EXPECT_LT(relative_error(dx, expected_dx), testing::kFloatTolerance);
  relu_squared(x, expected);
  reference::relu_squared(x, y);
  EXPECT_TRUE(y.equal(expected));
  relu_squared_backward(dy, y, expected_dx);
  reference::relu_squared_backward(dy, y, dx);
  EXPECT_LT(relative_error(dx, expected_dx), testing::kFloatTolerance);

  const RopeTable table = make_rope_table(32, 16, 10000.0, true);
  const at::Tensor qkv = random_tensor({2, 9, 4 * 16}, at::kFloat, 3);
  at::Tensor q = at::empty({2, 9, 2, 16}), k = at::empty({2, 9, 1, 16}), scales = at::empty({2, 9, 3});
  at::Tensor expected_q = at::empty_like(q), expected_k = at::empty_like(k), expected_scales = at::empty_like(scales);
  const at::Tensor start = at::full({2}, 4, at::kLong);
  rope_qk_norm(qkv, table, start, expected_q, expected_k, expected_scales, kEps);
  reference::rope_qk_norm(qkv, table, start, q, k, scales, kEps);
  EXPECT_LT(relative_error(q, expected_q), testing::kFloatTolerance);
  EXPECT_LT(relative_error(k, expected_k), testing::kFloatTolerance);
  const at::Tensor dq = random_tensor(q.sizes(), at::kFloat, 4), dk = random_tensor(k.sizes(), at::kFloat, 5);
  const at::Tensor dv = random_tensor(k.sizes(), at::kFloat, 15);
  at::Tensor dqkv = at::zeros(qkv.sizes()), expected_dqkv = at::zeros(qkv.sizes());
  rope_qk_norm_backward(dq, dk, dv, q, k, scales, table, expected_dqkv);
  reference::rope_qk_norm_backward(dq, dk, dv, q, k, scales, table, dqkv);
  EXPECT_LT(relative_error(dqkv, expected_dqkv), testing::kFloatTolerance);

  const at::Tensor w = random_tensor({64, 48}, at::kFloat, 6), targets = random_targets(21, 60, 7);
  const at::Tensor scale = random_tensor({21}, at::kFloat, 8);
  const HeadOptions options{.vocab_size = 60};
  at::Tensor losses = at::empty({21}), expected_losses = at::empty({21}), dw = at::zeros_like(w);
  head_losses_and_gradients(x, w, targets, scale, options, expected_losses, expected_dx, dw);
  at::Tensor z = x.matmul(w.t());
  EXPECT_LT(relative_error(reference::softcap(z, 60, 15.0), softcap_logits(x.matmul(w.t()), options)),
            testing::kFloatTolerance);
  reference::softcap_cross_entropy(z, targets, scale, losses, 60, 15.0);
  EXPECT_LT(relative_error(losses, expected_losses), testing::kFloatTolerance);
  EXPECT_LT(relative_error(z.matmul(w), expected_dx), 2 * testing::kFloatTolerance);

  const at::Tensor ids = random_targets(21, 60, 9).clamp_min(0);
  at::Tensor rows = at::empty({21, 48}), expected_rows = at::empty({21, 48});
  embedding(w, ids, expected_rows);
  reference::embedding(w, ids, rows);
  EXPECT_TRUE(rows.equal(expected_rows));
  at::Tensor table_gradient = at::zeros_like(w), expected_gradient = at::zeros_like(w);
  embedding_backward(dy, ids, expected_gradient);
  reference::embedding_backward(dy, ids, table_gradient);
  EXPECT_LT(relative_error(table_gradient, expected_gradient), testing::kFloatTolerance);

  MatrixList matrices, others;
  matrices.add(x.clone(), dy, w.narrow(0, 0, 21).clone(), x);
  others.add(x.clone(), dy, w.narrow(0, 0, 21).clone(), x);
  EXPECT_LT(relative_error(reference::muon_directions(others, at::kFloat, 0.5, 0.9, true),
                           muon_directions(matrices, at::kFloat, 0.5, 0.9, true)),
            testing::kFloatTolerance);
  EXPECT_LT(relative_error(others.momentum[0], matrices.momentum[0]), testing::kFloatTolerance);
  EXPECT_NEAR(sum_of_squares(matrices.gradient), reference::sum_of_squares(matrices.gradient).item<double>(), 1e-3);
  const AdamWArguments step{.grad_scale = 0.5, .learning_rate = 0.1, .weight_decay = 0.1, .bias1 = 0.1, .sqrt_bias2 = 0.2};
  at::Tensor p = x.clone(), m = dy.clone(), v = dy.square(), p2 = x.clone(), m2 = dy.clone(), v2 = dy.square();
  adamw(p, dy, m, v, p, step);
  reference::adamw(p2, dy, m2, v2, p2, step);
  EXPECT_LT(relative_error(p2, p), testing::kFloatTolerance);
  EXPECT_LT(relative_error(v2, v), testing::kFloatTolerance);
}

TEST(Device, TheCpuNeedsNothing) {
  EXPECT_NO_THROW(use_device(c10::kCPU));
  EXPECT_NO_THROW(synchronize(c10::kCPU));
  EXPECT_EQ(peak_device_memory(c10::kCPU), 0);
  if (!cuda_built()) {
    EXPECT_EQ(cuda_devices(), 0);
    EXPECT_THROW(describe_gpu(0), c10::Error);
    EXPECT_THROW(use_device(c10::Device(c10::kCUDA, 0)), c10::Error);
    EXPECT_THROW(synchronize(c10::kCUDA), c10::Error);
  }
  EXPECT_FALSE(use_reference_kernels());
  EXPECT_GT(peak_flops(c10::kCPU, at::kFloat), 1e8);
}

}  // namespace
}  // namespace nanochat::ops
