#include "optim/normuon.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/masked_fill.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

constexpr double kFive[5][3] = {{8.156554524902461, -22.48329292557795, 15.878769915207462},
                                {4.042929935166739, -2.808917465908714, 0.5000178451051316},
                                {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
                                {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
                                {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}};

// Whether an element decays depends on the sign of its update. Rounding may decide on the sign of an update so close to 0, where
// a usual one is about 1, and products of float32 are not rounded the same way in each run.
constexpr double kUnsure = 1e-4;

// One matrix in float64, row by row as the papers write it.
struct Plain {
  at::Tensor w, m, s;
  at::Tensor unsure;  // elements that had such an update
  void step(const at::Tensor& g, double lr, double mu, double decay, double beta2) {
    const std::int64_t rows = w.size(0), columns = w.size(1);
    const bool by_row = rows >= columns;
    m = mu * m + (1.0 - mu) * g;
    at::Tensor x = (1.0 - mu) * g + mu * m;
    const double target = x.norm().item<double>() / std::sqrt(static_cast<double>(rows));
    for (std::int64_t r = 0; r < rows; ++r) {
      x[r].mul_(target / std::max(1e-6, x[r].norm().item<double>()));
    }
    x = x / (1.01 * x.norm().item<double>() + 1e-6);
    for (const auto& [a, b, c] : kFive) {
      if (rows > columns) {
        const at::Tensor gram = at::mm(x.t(), x);
        x = a * x + at::mm(x, b * gram + c * at::mm(gram, gram));
      } else {
        const at::Tensor gram = at::mm(x, x.t());
        x = a * x + at::mm(b * gram + c * at::mm(gram, gram), x);
      }
    }
    x = x * (std::sqrt(static_cast<double>(std::min(rows, columns))) / std::max(1e-6, x.norm().item<double>()));
    const double norm = x.norm().item<double>();
    s = beta2 * s + (1.0 - beta2) * x.square().mean(by_row ? 1 : 0, /*keepdim=*/true);
    x = x / s.clamp_min(1e-10).sqrt();
    x = x * (norm / std::max(1e-10, x.norm().item<double>()));
    const double rate = lr * std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(columns)));
    unsure = unsure.logical_or(x.abs().lt(kUnsure));
    w = w - rate * (x + decay * at::where(x.mul(w).ge(0.0), w, at::zeros_like(w)));
  }
};

struct Shape {
  std::int64_t rows, columns;
};

TEST(NorMuon, FollowsTheFormulasOverManySteps) {
  constexpr double kTolerance = 2e-5;  // float32 through five iterations, over six steps
  constexpr std::int64_t kMostUnsure = 12;  // of up to 640 elements
  for (const Shape shape : {Shape{24, 24}, Shape{40, 16}, Shape{16, 40}, Shape{2, 12}, Shape{20, 12}}) {
    const auto random = [&] { return at::randn({shape.rows, shape.columns}); };
    ops::MatrixList matrices;
    std::vector<at::Tensor> moments;
    std::vector<Plain> plain;
    for (int i = 0; i < 2; ++i) {
      const at::Tensor value = random();
      matrices.add(value, at::Tensor(), at::zeros_like(value), value);
      moments.push_back(make_second_moment(value));
      plain.push_back({value.to(at::kDouble).clone(), at::zeros_like(value, at::kDouble), moments.back().to(at::kDouble),
                       at::zeros_like(value, at::kBool)});
    }
    for (int step = 0; step < 6; ++step) {
      for (std::size_t i = 0; i < plain.size(); ++i) {
        matrices.gradient[i] = random();
        plain[i].step(matrices.gradient[i].to(at::kDouble).mul(0.5), 0.02, 0.9, 0.3, 0.9);
      }
      normuon_step(matrices, moments, {.learning_rate = 0.02, .momentum = 0.9, .weight_decay = 0.3, .grad_scale = 0.5},
                   {.beta2 = 0.9, .dtype = at::kFloat});
    }
    for (std::size_t i = 0; i < plain.size(); ++i) {
      const auto difference = [](const at::Tensor& a, const at::Tensor& b) {
        return a.to(at::kDouble).sub(b).norm().item<double>() / b.norm().item<double>();
      };
      const at::Tensor unsure = plain[i].unsure;
      EXPECT_LE(unsure.sum().item<std::int64_t>(), kMostUnsure);
      EXPECT_LT(difference(matrices.value[i].masked_fill(unsure, 0.0), plain[i].w.masked_fill(unsure, 0.0)), kTolerance)
          << shape.rows << " x " << shape.columns;
      EXPECT_LT(difference(matrices.momentum[i], plain[i].m), kTolerance);
      EXPECT_LT(difference(moments[i], plain[i].s), 10 * kTolerance);
    }
  }
}

TEST(NorMuon, AGradientOfZerosDecaysEverything) {
  const at::Tensor value = at::randn({8, 12}), before = value.clone();
  ops::MatrixList matrices;
  matrices.add(value, at::zeros({8, 12}), at::zeros({8, 12}), value);
  std::vector<at::Tensor> moments = {make_second_moment(value)};
  normuon_step(matrices, moments, {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.5}, {.dtype = at::kFloat});
  EXPECT_LT(value.sub(before.mul(0.95)).abs().max().item<double>(), 1e-6);
}

TEST(NorMuon, KeepsTheComputeCopyInStepAndComputesInBfloat16) {
  const at::Tensor value = at::randn({32, 16}), copy = at::empty({32, 16}, at::kBFloat16), exact = value.clone();
  ops::MatrixList narrow, wide;
  const at::Tensor gradient = at::randn({32, 16});
  narrow.add(value, gradient, at::zeros({32, 16}), copy);
  wide.add(exact, gradient, at::zeros({32, 16}), exact);
  std::vector<at::Tensor> moments = {make_second_moment(value)}, others = {make_second_moment(value)};
  const NorMuonStep step{.learning_rate = 0.1, .momentum = 0.9};
  normuon_step(narrow, moments, step, {.dtype = at::kBFloat16});
  normuon_step(wide, others, step, {.dtype = at::kFloat});
  EXPECT_TRUE(at::equal(copy, value.to(at::kBFloat16)));
  const double difference = value.sub(exact).norm().item<double>();
  EXPECT_GT(difference, 0.0);
  EXPECT_LT(difference, 0.1 * 0.1 * 4.0 * std::sqrt(2.0)) << "a tenth of the step, whose norm is 4";
}

TEST(PolarExpress, BringsSingularValuesNearOne) {
  const at::Tensor x = at::randn({1, 24, 40});
  const at::Tensor values = at::linalg_svdvals(polar_express(x.div(x.norm().mul(1.01)))[0]);
  EXPECT_GT(values.min().item<double>(), 0.8);
  EXPECT_LT(values.max().item<double>(), 1.2);
}

TEST(NorMuon, RefusesMomentsOfOtherMatrices) {
  const at::Tensor value = at::randn({8, 12});
  ops::MatrixList matrices;
  matrices.add(value, value, at::zeros({8, 12}), value);
  std::vector<at::Tensor> none;
  EXPECT_THROW(normuon_step(matrices, none, {}, {}), c10::Error);
}

}  // namespace
}  // namespace nanochat
