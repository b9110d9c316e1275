#include "ops/optimizer.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/cast.h"
#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/reference.h"

namespace nanochat::ops {
namespace {

// Sums are taken over fixed chunks, in their order, so that they do not depend on the number of threads.
constexpr std::int64_t kChunk = 1 << 15;

}  // namespace

void MatrixList::add(at::Tensor new_value, at::Tensor new_gradient, at::Tensor new_momentum, at::Tensor new_compute) {
  value.push_back(std::move(new_value));
  gradient.push_back(std::move(new_gradient));
  momentum.push_back(std::move(new_momentum));
  compute.push_back(std::move(new_compute));
}

void adamw(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
           at::Tensor& compute, const AdamWArguments& a) {
  TORCH_CHECK(value.sizes() == gradient.sizes() && value.sizes() == first_moment.sizes() &&
                  value.sizes() == second_moment.sizes() && value.sizes() == compute.sizes(),
              "adamw: shapes differ from ", value.sizes());
  if (value.is_cuda()) {
    return on_gpu(cuda::adamw, reference::adamw)(value, gradient, first_moment, second_moment, compute, a);
  }
  auto* p = typed<float>(value);
  const auto* g = typed<float>(gradient);
  auto* m = typed<float>(first_moment);
  auto* v = typed<float>(second_moment);
  auto* copy = compute.scalar_type() == at::kBFloat16 ? typed<cpu::bf16>(compute) : nullptr;
  parallel_for(value.numel(), kChunk, [&](std::int64_t begin, std::int64_t end) {
    cpu::optimizer_kernels().adamw(p + begin, g + begin, m + begin, v + begin, copy != nullptr ? copy + begin : nullptr,
                                   end - begin, static_cast<float>(a.grad_scale), static_cast<float>(a.beta1),
                                   static_cast<float>(a.beta2), static_cast<float>(a.learning_rate),
                                   static_cast<float>(a.weight_decay), static_cast<float>(a.eps), static_cast<float>(a.bias1),
                                   static_cast<float>(a.sqrt_bias2));
  });
}

at::Tensor muon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum,
                           bool nesterov) {
  TORCH_CHECK(!matrices.value.empty(), "muon_directions: no matrices");
  const at::Tensor& like = matrices.value.front();
  if (like.is_cuda()) {
    return on_gpu(cuda::muon_directions, reference::muon_directions)(matrices, dtype, grad_scale, momentum, nesterov);
  }
  const std::int64_t size = like.numel(), chunks = (size + kChunk - 1) / kChunk;
  const auto count = static_cast<std::int64_t>(matrices.value.size());
  at::Tensor batch = at::empty({count, like.size(0), like.size(1)}, dtype);
  const bool narrow = dtype == at::kBFloat16;
  std::vector<double> partial(static_cast<std::size_t>(count * chunks));
  parallel_for(count * chunks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto matrix = static_cast<std::size_t>(i / chunks);
      const std::int64_t offset = (i % chunks) * kChunk, n = std::min(kChunk, size - offset);
      const std::int64_t at = (i / chunks) * size + offset;
      partial[static_cast<std::size_t>(i)] = cpu::optimizer_kernels().muon_momentum(
          typed<float>(matrices.momentum[matrix]) + offset, typed<float>(matrices.gradient[matrix]) + offset,
          narrow ? typed<cpu::bf16>(batch) + at : nullptr, narrow ? nullptr : typed<float>(batch) + at, n,
          static_cast<float>(grad_scale), static_cast<float>(momentum), nesterov);
    }
  });
  at::Tensor norms = at::empty({count, 1, 1}, at::kFloat);
  for (std::int64_t i = 0; i < count; ++i) {
    double sum = 0.0;
    for (std::int64_t c = 0; c < chunks; ++c) sum += partial[static_cast<std::size_t>(i * chunks + c)];
    norms.data_ptr<float>()[i] = static_cast<float>(std::sqrt(sum));
  }
  return batch.div_(norms.to(dtype).add_(1e-7));
}

void muon_apply(const MatrixList& matrices, const at::Tensor& update, double rate) {
  if (update.is_cuda() && !use_reference_kernels()) return cuda::muon_apply(matrices, update, rate);
  for (std::size_t i = 0; i < matrices.value.size(); ++i) {
    at::Tensor value = matrices.value[i], compute = matrices.compute[i];
    value.add_(update[static_cast<std::int64_t>(i)].to(at::kFloat), -rate);
    if (compute.scalar_type() != at::kFloat) copy_converting(value, compute);
  }
}

// On CPUs too: what they cost is small beside the products between them.
at::Tensor normuon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum) {
  TORCH_CHECK(!matrices.value.empty(), "normuon_directions: no matrices");
  const bool kernels = matrices.value.front().is_cuda() && !use_reference_kernels();
  return kernels ? cuda::normuon_directions(matrices, dtype, grad_scale, momentum)
                 : reference::normuon_directions(matrices, dtype, grad_scale, momentum);
}

void normuon_apply(const MatrixList& matrices, std::vector<at::Tensor>& second_moments, const at::Tensor& update,
                   const NorMuonArguments& arguments) {
  TORCH_CHECK(update.dim() == 3 && update.size(0) == static_cast<std::int64_t>(matrices.value.size()) &&
                  second_moments.size() == matrices.value.size(),
              "normuon_apply: update ", update.sizes(), " or ", second_moments.size(), " second moments do not fit ",
              matrices.value.size(), " matrices");
  const bool kernels = update.is_cuda() && !use_reference_kernels();
  kernels ? cuda::normuon_apply(matrices, second_moments, update, arguments)
          : reference::normuon_apply(matrices, second_moments, update, arguments);
}

double sum_of_squares(const std::vector<at::Tensor>& tensors) {
  if (tensors.empty()) return 0.0;
  if (tensors.front().is_cuda()) return on_gpu(cuda::sum_of_squares, reference::sum_of_squares)(tensors).item<double>();
  double total = 0.0;
  for (const at::Tensor& tensor : tensors) {
    constexpr std::int64_t kRun = 2 * kChunk;
    const auto* x = typed<float>(tensor);
    const std::int64_t n = tensor.numel();
    std::vector<double> partial(static_cast<std::size_t>((n + kRun - 1) / kRun));
    parallel_for(static_cast<std::int64_t>(partial.size()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        partial[static_cast<std::size_t>(i)] = cpu::optimizer_kernels().sum_of_squares(x + i * kRun,
                                                                                       std::min(kRun, n - i * kRun));
      }
    });
    for (const double sum : partial) total += sum;
  }
  return total;
}

}  // namespace nanochat::ops
