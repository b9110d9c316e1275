#include "ops/cross_entropy.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <limits>

#include "core/testing_memory.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::kBf16Chain;
using testing::kFloatTolerance;
using testing::leaf;
using testing::random_tensor;
using testing::relative_error;

struct Case {
  at::ScalarType dtype;
  std::int64_t tokens, width, vocab, padded;
  double softcap;
  std::int64_t chunk_bytes;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.dtype << " N" << c.tokens << " C" << c.width << " V" << c.vocab << "/" << c.padded << " cap" << c.softcap
       << " chunk" << c.chunk_bytes;
}

at::Tensor reference_logits(const at::Tensor& x, const at::Tensor& w, const HeadOptions& options) {
  const at::Tensor z = at::matmul(x, w.narrow(0, 0, options.vocab_size).t());
  return options.softcap > 0.0 ? options.softcap * (z / options.softcap).tanh() : z;
}

at::Tensor reference_losses(const at::Tensor& x, const at::Tensor& w, const at::Tensor& targets, const HeadOptions& options) {
  const at::Tensor index = targets.to(at::kLong);
  const at::Tensor nll = -reference_logits(x, w, options).log_softmax(1).gather(1, index.clamp_min(0).unsqueeze(1));
  return nll.squeeze(1) * index.ge(0).to(at::kDouble);
}

class Head : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case c = GetParam();
    options_ = {.vocab_size = c.vocab, .softcap = c.softcap, .chunk_bytes = c.chunk_bytes};
    x_ = random_tensor({c.tokens, c.width}, c.dtype, 1);
    w_ = random_tensor({c.padded, c.width}, c.dtype, 2, 0.5);
    scale_ = random_tensor({c.tokens}, at::kFloat, 3);
    targets_ = at::empty({c.tokens}, at::kInt);
    Rng rng(4);
    for (std::int64_t i = 0; i < c.tokens; ++i) {
      const auto target = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(c.vocab)));
      targets_.data_ptr<std::int32_t>()[i] = i % 5 == 3 ? -1 : target;
    }
  }
  // bf16 logits are rounded before the loss is taken; the loss itself is float32.
  double tolerance() const { return GetParam().dtype == at::kFloat ? 2 * kFloatTolerance : kBf16Chain; }

  HeadOptions options_;
  at::Tensor x_, w_, scale_, targets_;
};

TEST_P(Head, LossesAndGradientsEqualAutograd) {
  const at::Tensor x = leaf(x_), w = leaf(w_);
  const at::Tensor expected = reference_losses(x, w, targets_, options_);
  (expected * scale_.to(at::kDouble)).sum().backward();

  at::Tensor losses = at::full({x_.size(0)}, -7.0, at::kFloat), dx = at::full(x_.sizes(), -7.0, x_.options());
  at::Tensor dw = at::ones(w_.sizes(), at::kFloat);
  head_losses_and_gradients(x_, w_, targets_, scale_, options_, losses, dx, dw);
  EXPECT_LT(relative_error(losses, expected), tolerance());
  EXPECT_LT(relative_error(dx, x.grad()), 2 * tolerance());
  EXPECT_LT(relative_error(dw - 1.0, w.grad()), 2 * tolerance());  // added to what was there

  const at::Tensor ignored = targets_.lt(0);
  EXPECT_EQ(losses.masked_select(ignored).abs().sum().item<double>(), 0.0);
  EXPECT_EQ(dx.masked_select(ignored.unsqueeze(1)).abs().sum().item<double>(), 0.0);
  const at::Tensor padding = dw.narrow(0, options_.vocab_size, w_.size(0) - options_.vocab_size);
  EXPECT_TRUE(padding.equal(at::ones(padding.sizes())));

  at::Tensor alone = at::empty({x_.size(0)}, at::kFloat);
  head_losses(x_, w_, targets_, options_, alone);
  EXPECT_TRUE(alone.equal(losses));

  at::Tensor frozen_dx = at::full(x_.sizes(), -7.0, x_.options()), none;  // of a weight that is not trained
  head_losses_and_gradients(x_, w_, targets_, scale_, options_, alone, frozen_dx, none);
  EXPECT_TRUE(frozen_dx.equal(dx));
}

// The sums over rows have other terms next to each other than without the list.
TEST_P(Head, RowsWithoutATargetMayBeLeftOut) {
  const at::Tensor rows = rows_with_target(targets_);
  EXPECT_EQ(rows.defined() ? rows.numel() : x_.size(0), targets_.ge(0).sum().item<std::int64_t>());
  at::Tensor losses = at::empty({x_.size(0)}), dx = at::empty_like(x_), dw = at::ones(w_.sizes(), at::kFloat);
  head_losses_and_gradients(x_, w_, targets_, scale_, options_, losses, dx, dw);
  at::Tensor picked_losses = at::full({x_.size(0)}, -7.0), picked_dx = at::full(x_.sizes(), -7.0, x_.options());
  at::Tensor picked_dw = at::ones(w_.sizes(), at::kFloat), alone = at::full({x_.size(0)}, -7.0);
  head_losses_and_gradients(x_, w_, targets_, scale_, options_, picked_losses, picked_dx, picked_dw, rows);
  EXPECT_LT(relative_error(picked_losses, losses), kFloatTolerance);
  EXPECT_LT(relative_error(picked_dx, dx), tolerance());
  EXPECT_LT(relative_error(picked_dw - 1.0, dw - 1.0), tolerance());
  const at::Tensor ignored = targets_.lt(0);
  EXPECT_EQ(picked_losses.masked_select(ignored).abs().sum().item<double>(), 0.0);
  EXPECT_EQ(picked_dx.index_select(0, ignored.nonzero().flatten()).abs().sum().item<double>(), 0.0);
  head_losses(x_, w_, targets_, options_, alone, rows);
  EXPECT_TRUE(alone.equal(picked_losses));
}

TEST(HeadRows, ArePickedOnlyWhereItSavesTime) {
  at::Tensor targets = at::ones({32}, at::kInt);
  EXPECT_FALSE(rows_with_target(targets).defined());
  EXPECT_FALSE(rows_with_target(at::ones({5}, at::kInt)).defined());
  targets[7] = -1;
  EXPECT_FALSE(rows_with_target(targets).defined());
  targets[9] = -1;
  EXPECT_EQ(rows_with_target(targets).numel(), 30);
  targets.fill_(-1);
  const at::Tensor none = rows_with_target(targets);
  ASSERT_TRUE(none.defined());
  at::Tensor losses = at::ones({32}), dx = at::ones({32, 8}), dw = at::ones({64, 8});
  head_losses_and_gradients(at::ones({32, 8}), at::ones({64, 8}), targets, at::ones({32}), {.vocab_size = 50}, losses, dx, dw,
                            none);
  EXPECT_EQ(losses.abs().sum().item<double>() + dx.abs().sum().item<double>(), 0.0);
  EXPECT_TRUE(dw.equal(at::ones({64, 8})));
}

TEST(HeadMemory, IsWhatLossesAndGradientsTake) {
  if (nanochat::testing::kFreedMemoryIsKept) GTEST_SKIP() << "memory in use cannot be measured with AddressSanitizer";
  constexpr std::int64_t kTokens = 1200, kWidth = 128, kVocab = 16384;
  constexpr double kSlack = 16 << 20;  // MKL packs matrices (12 MB), and each thread keeps a row in float32
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = random_tensor({kTokens, kWidth}, dtype, 1), w = random_tensor({kVocab, kWidth}, dtype, 2, 0.5);
    const at::Tensor targets = at::ones({kTokens}, at::kInt), scale = at::ones({kTokens});
    at::Tensor losses = at::zeros({kTokens}), dx = at::zeros({kTokens, kWidth}, dtype), dw = at::zeros({kVocab, kWidth});
    const auto step = [&](std::int64_t rows) {
      at::Tensor loss = losses.narrow(0, 0, rows), dinputs = dx.narrow(0, 0, rows);
      head_losses_and_gradients(x.narrow(0, 0, rows), w, targets.narrow(0, 0, rows), scale.narrow(0, 0, rows),
                                {.vocab_size = kVocab}, loss, dinputs, dw);
    };
    step(1);  // what libraries take at first
    ::malloc_trim(0);
    const auto taken = nanochat::testing::peak_memory_of([&] { step(kTokens); });
    if (!taken) GTEST_SKIP() << "the peak cannot be reset";
    const auto counted = static_cast<double>(head_bytes(kTokens, kWidth, kVocab, x.options()));
    EXPECT_GT(static_cast<double>(*taken), 0.95 * counted) << dtype;
    EXPECT_LT(static_cast<double>(*taken), counted + kSlack) << dtype;
  }
}

TEST(HeadMemory, IsAtMostOneChunk) {
  const at::TensorOptions cpu = at::kFloat, gpu = at::TensorOptions(at::kBFloat16).device(at::kCUDA);
  EXPECT_EQ(head_bytes(10, 8, 65536, cpu), 10 * 65536 * 4);
  EXPECT_EQ(head_bytes(5000, 8, 65536, cpu), 1024 * 65536 * 4);
  EXPECT_EQ(head_bytes(5000, 8, 256, cpu), 5000 * 256 * 4);
  EXPECT_EQ(head_bytes(50'000, 8, 256, cpu), 8 << 20);
  EXPECT_EQ(head_bytes(50'000, 8, 65536, gpu), 1 << 30);
}

TEST_P(Head, LogitsEqualTheFormula) {
  const at::Tensor logits = softcap_logits(at::matmul(x_, w_.t()), options_);
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  EXPECT_EQ(logits.sizes(), (at::IntArrayRef{x_.size(0), options_.vocab_size}));
  EXPECT_LT(relative_error(logits, reference_logits(x_.to(at::kDouble), w_.to(at::kDouble), options_)), tolerance());
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Head,
    ::testing::Values(Case{at::kFloat, 7, 24, 50, 64, 15.0, 8 << 20}, Case{at::kFloat, 33, 16, 37, 64, 0.0, 1000},
                      Case{at::kFloat, 20, 32, 64, 64, 60.0, 1}, Case{at::kFloat, 1, 8, 2, 64, 15.0, 4096},
                      Case{at::kFloat, 130, 48, 1003, 1024, 15.0, 100000}, Case{at::kFloat, 9, 64, 129, 192, 39.0, 2000},
                      Case{at::kBFloat16, 7, 24, 50, 64, 15.0, 8 << 20}, Case{at::kBFloat16, 33, 16, 37, 64, 0.0, 1000},
                      Case{at::kBFloat16, 20, 32, 64, 64, 60.0, 1}, Case{at::kBFloat16, 130, 48, 1003, 1024, 15.0, 100000}));

TEST(HeadGradients, EqualFiniteDifferences) {
  constexpr double kStep = 1e-2;
  const HeadOptions options{.vocab_size = 40, .softcap = 15.0};
  const at::Tensor x = random_tensor({12, 16}, at::kFloat, 1), w = random_tensor({64, 16}, at::kFloat, 2, 2.0);
  const at::Tensor scale = random_tensor({12}, at::kFloat, 3).abs();
  const at::Tensor targets = at::full({12}, 5, at::kInt);
  const auto total = [&](const at::Tensor& inputs, const at::Tensor& weights) {
    at::Tensor losses = at::empty({12}, at::kFloat);
    head_losses(inputs, weights, targets, options, losses);
    return (losses.to(at::kDouble) * scale.to(at::kDouble)).sum().item<double>();
  };
  at::Tensor losses = at::empty({12}, at::kFloat), dx = at::empty_like(x), dw = at::zeros_like(w);
  head_losses_and_gradients(x, w, targets, scale, options, losses, dx, dw);
  for (std::uint64_t seed = 10; seed < 15; ++seed) {
    const at::Tensor along_x = random_tensor(x.sizes(), at::kFloat, seed);
    const double slope_x = (total(x + kStep * along_x, w) - total(x - kStep * along_x, w)) / (2 * kStep);
    const double expected_x = (dx * along_x).sum(at::kDouble).item<double>();
    EXPECT_NEAR(slope_x, expected_x, 1e-3 * dx.norm().item<double>());
    const at::Tensor along_w = random_tensor(w.sizes(), at::kFloat, seed + 100);
    const double slope_w = (total(x, w + kStep * along_w) - total(x, w - kStep * along_w)) / (2 * kStep);
    EXPECT_NEAR(slope_w, (dw * along_w).sum(at::kDouble).item<double>(), 3e-3 * dw.norm().item<double>());
  }
}

TEST(HeadLosses, StayFiniteForHugeLogits) {
  const at::Tensor w = random_tensor({64, 8}, at::kFloat, 2, 1000.0), x = random_tensor({5, 8}, at::kFloat, 1, 100.0);
  const at::Tensor targets = at::full({5}, 3, at::kInt), scale = at::ones({5});
  for (const double cap : {0.0, 15.0, 60.0}) {
    const HeadOptions options{.vocab_size = 60, .softcap = cap};
    at::Tensor losses = at::empty({5}), dx = at::empty_like(x), dw = at::zeros_like(w);
    head_losses_and_gradients(x, w, targets, scale, options, losses, dx, dw);
    const at::Tensor expected = reference_losses(x.to(at::kDouble), w.to(at::kDouble), targets, options);
    EXPECT_LT(relative_error(losses, expected), kFloatTolerance) << "cap " << cap;
    EXPECT_FALSE(testing::any_nan(dx)) << "cap " << cap;
    EXPECT_FALSE(testing::any_nan(dw)) << "cap " << cap;
  }
}

TEST(HeadLosses, ANanReachesTheLoss) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const double cap : {0.0, 15.0}) {
      at::Tensor x = random_tensor({4, 8}, dtype, 1);
      x[2][5] = std::numeric_limits<double>::quiet_NaN();
      const at::Tensor w = random_tensor({64, 8}, dtype, 2);
      const HeadOptions options{.vocab_size = 60, .softcap = cap};
      at::Tensor losses = at::empty({4});
      head_losses(x, w, at::full({4}, 1, at::kInt), options, losses);
      EXPECT_TRUE(losses[2].isnan().item<bool>()) << dtype << " cap " << cap;
      EXPECT_FALSE(losses[1].isnan().item<bool>());
      EXPECT_TRUE(softcap_logits(x.matmul(w.t()), options)[2].isnan().all().item<bool>());
    }
  }
}

TEST(HeadErrors, NamesWhatDoesNotFit) {
  const at::Tensor x = random_tensor({4, 8}, at::kFloat, 1), w = random_tensor({64, 8}, at::kFloat, 2);
  at::Tensor losses = at::empty({4});
  const HeadOptions options{.vocab_size = 60};
  const auto losses_of = [&](const at::Tensor& inputs, const at::Tensor& targets, const HeadOptions& with) {
    head_losses(inputs, w, targets, with, losses);
  };
  const at::Tensor targets = at::full({4}, 59, at::kInt);
  EXPECT_NO_THROW(losses_of(x, targets, options));
  EXPECT_THROW(losses_of(x, at::full({4}, 60, at::kInt), options), c10::Error);
  EXPECT_THROW(losses_of(x, at::full({4}, 1, at::kLong), options), c10::Error);
  EXPECT_THROW(losses_of(x, at::full({3}, 1, at::kInt), options), c10::Error);
  EXPECT_THROW(losses_of(x.narrow(1, 0, 7), targets, options), c10::Error);
  EXPECT_THROW(losses_of(x, targets, {.vocab_size = 65}), c10::Error);
  EXPECT_THROW(softcap_logits(x.matmul(w.t()), {.vocab_size = 0}), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
