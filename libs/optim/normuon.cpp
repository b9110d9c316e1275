#include "optim/normuon.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "ops/cast.h"
#include "optim/muon.h"

namespace nanochat {
namespace {

// For five iterations, with a safety factor of 1.02 and a cushion of 0.02.
constexpr std::array<QuinticStep, 5> kPolarExpress = {{
    {8.156554524902461, -22.48329292557795, 15.878769915207462},
    {4.042929935166739, -2.808917465908714, 0.5000178451051316},
    {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
    {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
    {2.3465413258596377, -1.7097828382687081, 0.42323551169305323},
}};
constexpr double kSmallestNorm = 1e-6, kSmallestMoment = 1e-10;

// (n, 1, 1) and (n, R, 1), in float32 whatever the type.
at::Tensor norms(const at::Tensor& x) { return x.to(at::kFloat).norm(2, {1, 2}, /*keepdim=*/true); }
at::Tensor row_norms(const at::Tensor& x) { return x.to(at::kFloat).norm(2, {2}, /*keepdim=*/true); }

// Nesterov's momentum of every matrix, (n, R, C) float32.
at::Tensor directions(const ops::MatrixList& matrices, const NorMuonStep& step) {
  std::vector<at::Tensor> all;
  for (std::size_t i = 0; i < matrices.value.size(); ++i) {
    const at::Tensor gradient = step.grad_scale == 1.0 ? matrices.gradient[i] : matrices.gradient[i].mul(step.grad_scale);
    at::Tensor momentum = matrices.momentum[i];
    momentum.lerp_(gradient, 1.0 - step.momentum);
    all.push_back(gradient.lerp(momentum, step.momentum));
  }
  return at::stack(all);
}

// MuonEq: every row gets the same norm.
at::Tensor equilibrate(const at::Tensor& x) {
  const at::Tensor mean = norms(x).div(std::sqrt(static_cast<double>(x.size(1))));
  return x.mul(mean.div(row_norms(x).clamp_min(kSmallestNorm)).to(x.scalar_type()));
}

// NorMuon: rows (or columns, of wide matrices) that have moved much are damped; the norm of the whole stays.
at::Tensor reduce_variance(const at::Tensor& x, std::vector<at::Tensor>& second_moments, double beta2) {
  const std::int64_t along = x.size(1) >= x.size(2) ? 2 : 1;
  const auto length = static_cast<double>(x.size(along));
  const at::Tensor mean_square = x.square().mean(at::IntArrayRef{along}, /*keepdim=*/true);
  const at::Tensor norm = mean_square.sum({1, 2}, /*keepdim=*/true).mul(length).sqrt();
  std::vector<at::Tensor> factors;
  for (std::size_t i = 0; i < second_moments.size(); ++i) {
    second_moments[i].lerp_(mean_square[static_cast<std::int64_t>(i)], 1.0 - beta2);
    factors.push_back(second_moments[i].clamp_min(kSmallestMoment).rsqrt());
  }
  const at::Tensor factor = at::stack(factors);
  const at::Tensor new_norm = mean_square.mul(length).mul(factor.square()).sum({1, 2}, /*keepdim=*/true).sqrt();
  return x.mul(factor.mul(norm.div(new_norm.clamp_min(kSmallestMoment))));
}

}  // namespace

at::Tensor polar_express(const at::Tensor& x) { return quintic_iteration(x, kPolarExpress); }

at::Tensor make_second_moment(const at::Tensor& matrix) {
  const std::int64_t rows = matrix.size(0), columns = matrix.size(1);
  const at::TensorOptions options = matrix.options().dtype(at::kFloat);
  return rows >= columns ? at::zeros({rows, 1}, options) : at::zeros({1, columns}, options);
}

void normuon_step(const ops::MatrixList& matrices, std::vector<at::Tensor>& second_moments, const NorMuonStep& step,
                  const NorMuonOptions& options) {
  if (matrices.value.empty()) return;
  TORCH_CHECK(second_moments.size() == matrices.value.size(), "normuon_step: ", second_moments.size(), " second moments for ",
              matrices.value.size(), " matrices");
  at::Tensor x = equilibrate(directions(matrices, step).to(options.dtype));
  x = polar_express(x.div(norms(x).to(x.scalar_type()).mul(1.01).add(1e-6))).to(at::kFloat);
  const auto rows = static_cast<double>(x.size(1)), columns = static_cast<double>(x.size(2));
  x = x.mul(norms(x).clamp_min(kSmallestNorm).reciprocal().mul(std::sqrt(std::min(rows, columns))));  // Muon+
  x = reduce_variance(x, second_moments, options.beta2);
  const double rate = step.learning_rate * std::sqrt(std::max(1.0, rows / columns));
  for (std::size_t i = 0; i < matrices.value.size(); ++i) {
    const at::Tensor update = x[static_cast<std::int64_t>(i)];
    at::Tensor value = matrices.value[i], compute = matrices.compute[i];
    // Cautious: what the step makes larger does not decay at the same time.
    const at::Tensor decaying = value.mul(update.mul(value).ge(0.0));
    value.sub_(update.add(decaying, step.weight_decay).mul_(rate));
    if (compute.scalar_type() != at::kFloat) ops::copy_converting(value, compute);
  }
}

}  // namespace nanochat
