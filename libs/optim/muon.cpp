#include "optim/muon.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace nanochat {

namespace {

constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;

at::Tensor all_at_once(at::Tensor x, int steps) {
  for (int step = 0; step < steps; ++step) {
    const at::Tensor gram = at::bmm(x, x.transpose(1, 2));
    const at::Tensor polynomial = at::baddbmm(gram, gram, gram, kB, kC);  // b G + c G G
    x = at::baddbmm(x, polynomial, x, kA, 1.0);                           // a X + (b G + c G G) X
  }
  return x;
}

// LibTorch's batched products in bf16 are slow on CPUs; oneDNN's single ones are not.
at::Tensor one_by_one(const at::Tensor& x, int steps) {
  const at::Tensor result = at::empty(x.sizes(), x.options());
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    at::Tensor current = x[i];
    for (int step = 0; step < steps; ++step) {
      const at::Tensor gram = at::mm(current, current.t());
      const at::Tensor polynomial = at::addmm(gram, gram, gram, kB, kC);
      current = at::addmm(current, polynomial, current, kA, 1.0);
    }
    result[i].copy_(current);
  }
  return result;
}

}  // namespace

at::Tensor newton_schulz(const at::Tensor& x, int steps) {
  TORCH_CHECK(x.dim() == 3, "newton_schulz: expected (n, rows, columns), got ", x.sizes());
  const bool tall = x.size(1) > x.size(2);
  const at::Tensor wide = tall ? x.transpose(1, 2).contiguous() : x;
  const at::Tensor result = x.is_cpu() ? one_by_one(wide, steps) : all_at_once(wide, steps);
  return tall ? result.transpose(1, 2).contiguous() : result;
}

void muon_step(const ops::MatrixList& matrices, double learning_rate, double momentum, double grad_scale,
               const MuonOptions& options) {
  if (matrices.value.empty()) return;
  // A Frobenius norm of 1 bounds the spectral norm by 1.
  const at::Tensor directions =
      ops::muon_directions(matrices, options.dtype, grad_scale, momentum, options.nesterov);
  const at::Tensor update = newton_schulz(directions, options.newton_schulz_steps);
  const auto rows = static_cast<double>(update.size(1)), columns = static_cast<double>(update.size(2));
  ops::muon_apply(matrices, update, learning_rate * std::sqrt(std::max(1.0, rows / columns)));
}

}  // namespace nanochat
