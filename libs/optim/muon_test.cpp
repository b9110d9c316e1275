#include "optim/muon.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include <gtest/gtest.h>

#include "ops/device.h"

namespace nanochat {
namespace {

at::Tensor normalised(const at::Tensor& x) { return x.div(x.norm()); }

// The iteration as the paper writes it, one matrix at a time, in float64.
at::Tensor plain_newton_schulz(at::Tensor x, int steps) {
  const bool tall = x.size(0) > x.size(1);
  if (tall) x = x.t();
  for (int i = 0; i < steps; ++i) {
    const at::Tensor a = x.mm(x.t());
    const at::Tensor b = a.mul(-4.7750).add(a.mm(a), 2.0315);
    x = x.mul(3.4445).add(b.mm(x));
  }
  return tall ? x.t() : x;
}

TEST(NewtonSchulz, FollowsTheQuinticIteration) {
  for (const auto& [rows, columns] : {std::pair{8, 8}, std::pair{24, 10}, std::pair{10, 24}}) {
    const at::Tensor x = normalised(at::randn({rows, columns}));
    const at::Tensor expected = plain_newton_schulz(x.to(at::kDouble), 5);
    const at::Tensor result = newton_schulz(x.unsqueeze(0), 5).select(0, 0);
    EXPECT_LT(result.to(at::kDouble).sub(expected).abs().max().item<double>(), 1e-4) << rows;
  }
}

TEST(NewtonSchulz, BringsSingularValuesNearOne) {
  const at::Tensor x = at::stack({normalised(at::randn({64, 32})), normalised(at::randn({64, 32}))});
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor values = at::linalg_svdvals(newton_schulz(x.to(dtype), 5).to(at::kFloat));
    EXPECT_GT(values.min().item<double>(), 0.6) << at::toString(dtype);
    EXPECT_LT(values.max().item<double>(), 1.3) << at::toString(dtype);
  }
}

// A GPU computes all matrices together, and tall ones without transposing them.
TEST(NewtonSchulz, OnAGpuAsOnACpu) {
  if (ops::cuda_devices() == 0) GTEST_SKIP() << "no GPU on this machine";
  for (const auto& [rows, columns] : {std::pair{40, 40}, std::pair{24, 72}, std::pair{72, 24}}) {
    const at::Tensor x = at::randn({3, rows, columns}).div(std::sqrt(static_cast<double>(rows * columns)));
    const at::Tensor expected = newton_schulz(x, 5);
    EXPECT_LT(newton_schulz(x.to(at::kCUDA), 5).cpu().sub(expected).abs().max().item<double>(), 1e-4) << rows;
    constexpr double kTolerance = 0.06;  // as below
    const at::Tensor narrow = newton_schulz(x.to(at::kCUDA).to(at::kBFloat16), 5).cpu().to(at::kFloat);
    EXPECT_LT(narrow.sub(newton_schulz(x.to(at::kBFloat16).to(at::kFloat), 5)).abs().max().item<double>(), kTolerance) << rows;
  }
}

// In bfloat16 a matrix to a thread as far as that goes, the rest by all threads; as near as the roundings let it be.
TEST(NewtonSchulz, InBfloat16HoweverManyMatrices) {
  constexpr double kTolerance = 0.06;  // of singular values about 1: five steps of three roundings to 1/256, amplified
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  for (const std::int64_t count : {1, 2, 3, 10}) {
    for (const auto& [rows, columns] : {std::pair{40, 40}, std::pair{24, 70}, std::pair{70, 24}}) {
      const at::Tensor x =
          at::randn({count, rows, columns}).div(std::sqrt(static_cast<double>(rows * columns))).to(at::kBFloat16);
      for (const int steps : {0, 1, 2, 5}) {
        const at::Tensor result = newton_schulz(x, steps).to(at::kDouble);
        for (std::int64_t i = 0; i < count; ++i) {
          const at::Tensor expected = plain_newton_schulz(x[i].to(at::kDouble), steps);
          const double scale = expected.abs().max().item<double>();
          EXPECT_LT(result[i].sub(expected).abs().max().item<double>(), kTolerance * scale)
              << count << ": " << rows << " x " << columns;
        }
      }
    }
  }
  at::set_num_threads(threads);
}

TEST(NewtonSchulz, RefusesAnythingButABatchOfMatrices) { EXPECT_THROW(newton_schulz(at::randn({4, 4}), 5), c10::Error); }

TEST(Muon, StepsAsTheReferenceDoes) {
  constexpr double kTolerance = 2e-5;
  for (const bool nesterov : {true, false}) {
    MuonOptions options;
    options.dtype = at::kFloat;
    options.nesterov = nesterov;
    ops::MatrixList matrices;
    std::vector<at::Tensor> values, momenta;
    for (int i = 0; i < 3; ++i) {
      const at::Tensor value = at::randn({32, 8});
      matrices.add(value, at::Tensor(), at::zeros({32, 8}), value);
      values.push_back(value.to(at::kDouble));
      momenta.push_back(at::zeros({32, 8}, at::kDouble));
    }
    for (int step = 0; step < 3; ++step) {
      for (std::size_t i = 0; i < 3; ++i) {
        matrices.gradient[i] = at::randn({32, 8});
        const at::Tensor g = matrices.gradient[i].to(at::kDouble).mul(0.25);
        momenta[i] = momenta[i].mul(0.9).add(g, 0.1);
        const at::Tensor direction = nesterov ? g.mul(0.1).add(momenta[i], 0.9) : momenta[i];
        values[i].sub_(plain_newton_schulz(normalised(direction), 5), 0.02 * std::sqrt(32.0 / 8.0));
      }
      muon_step(matrices, 0.02, 0.9, 0.25, options);
    }
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_LT(matrices.momentum[i].to(at::kDouble).sub(momenta[i]).abs().max().item<double>(), 1e-6);
      EXPECT_LT(matrices.value[i].to(at::kDouble).sub(values[i]).abs().max().item<double>(), kTolerance);
    }
  }
}

TEST(Muon, BfloatIterationMovesWeightsAlmostAlike) {
  constexpr double kBfloatTolerance = 0.05;  // of the update's norm
  const at::Tensor value = at::zeros({48, 64}), gradient = at::randn({48, 64});
  std::vector<at::Tensor> updates;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    MuonOptions options;
    options.dtype = dtype;
    at::Tensor copy = at::empty({48, 64}, at::kBFloat16);
    ops::MatrixList matrices;
    matrices.add(value.clone(), gradient, at::zeros({48, 64}), copy);
    muon_step(matrices, 1.0, 0.95, 1.0, options);
    EXPECT_TRUE(at::equal(copy, matrices.value[0].to(at::kBFloat16)));
    updates.push_back(matrices.value[0]);
  }
  EXPECT_LT(updates[0].sub(updates[1]).norm().item<double>(), kBfloatTolerance * updates[0].norm().item<double>());
}

TEST(Muon, AZeroGradientLeavesWeightsAlone) {
  const at::Tensor value = at::randn({8, 8}), before = value.clone();
  ops::MatrixList matrices;
  matrices.add(value, at::zeros({8, 8}), at::zeros({8, 8}), value);
  muon_step(matrices, 0.02, 0.95, 1.0, {});
  EXPECT_TRUE(at::equal(value, before));
  EXPECT_NO_THROW(muon_step({}, 0.02, 0.95, 1.0, {}));
}

}  // namespace
}  // namespace nanochat
