#include "optim/muon.h"

#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "ops/cast.h"
#include "ops/dispatch.h"

namespace nanochat {

at::Tensor newton_schulz(const at::Tensor& x, int steps) {
  TORCH_CHECK(x.dim() == 3, "newton_schulz: expected (n, rows, columns), got ", x.sizes());
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
  const bool tall = x.size(1) > x.size(2);
  at::Tensor current = tall ? x.transpose(1, 2).contiguous() : x;
  for (int step = 0; step < steps; ++step) {
    const at::Tensor gram = at::bmm(current, current.transpose(1, 2));
    const at::Tensor polynomial = at::baddbmm(gram, gram, gram, kB, kC);       // b G + c G G
    current = at::baddbmm(current, polynomial, current, kA, 1.0);              // a X + (b G + c G G) X
  }
  return tall ? current.transpose(1, 2).contiguous() : current;
}

void muon_step(std::vector<MuonMatrix>& matrices, double learning_rate, double momentum, double grad_scale,
               const MuonOptions& options) {
  if (matrices.empty()) return;
  const std::int64_t rows = matrices[0].value.size(0), columns = matrices[0].value.size(1), size = rows * columns;
  const auto count = static_cast<std::int64_t>(matrices.size());
  at::Tensor batch = at::empty({count, rows, columns}, options.dtype);
  const bool narrow = options.dtype == at::kBFloat16;

  // Momentum, and each direction normalised in Frobenius norm, which bounds the spectral norm by 1. Norms are summed
  // over fixed chunks so that they do not depend on the number of threads.
  constexpr std::int64_t kChunk = 1 << 15;
  const std::int64_t chunks = (size + kChunk - 1) / kChunk;
  std::vector<double> partial(static_cast<std::size_t>(count * chunks));
  ops::parallel_for(count * chunks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      MuonMatrix& matrix = matrices[static_cast<std::size_t>(i / chunks)];
      const std::int64_t offset = (i % chunks) * kChunk, n = std::min(kChunk, size - offset);
      const std::int64_t at = (i / chunks) * size + offset;
      partial[static_cast<std::size_t>(i)] = ops::cpu::optimizer_kernels().muon_momentum(
          ops::typed<float>(matrix.momentum) + offset, ops::typed<float>(matrix.gradient) + offset,
          narrow ? ops::typed<ops::cpu::bf16>(batch) + at : nullptr, narrow ? nullptr : ops::typed<float>(batch) + at, n,
          static_cast<float>(grad_scale), static_cast<float>(momentum), options.nesterov);
    }
  });
  at::Tensor norms = at::empty({count, 1, 1}, at::kFloat);
  for (std::int64_t i = 0; i < count; ++i) {
    double sum = 0.0;
    for (std::int64_t c = 0; c < chunks; ++c) sum += partial[static_cast<std::size_t>(i * chunks + c)];
    norms.data_ptr<float>()[i] = static_cast<float>(std::sqrt(sum));
  }
  batch.div_(norms.to(options.dtype).add_(1e-7));

  const at::Tensor update = newton_schulz(batch, options.newton_schulz_steps);
  const double aspect = std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(columns)));
  for (std::int64_t i = 0; i < count; ++i) {
    MuonMatrix& matrix = matrices[static_cast<std::size_t>(i)];
    matrix.value.add_(update[i].to(at::kFloat), -learning_rate * aspect);
    if (matrix.compute.scalar_type() != at::kFloat) ops::copy_converting(matrix.value, matrix.compute);
  }
}

}  // namespace nanochat
