#include "ops/residual_mix.h"

#include <ATen/ops/empty.h>

#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/reference.h"
#include "ops/rms_norm.h"

namespace nanochat::ops {
namespace {

float number(const at::Tensor& x) {
  TORCH_CHECK(x.numel() == 1 && x.scalar_type() == at::kFloat, "residual_mix: expected one float32 number, got ", x.sizes(),
              " ", x.scalar_type());
  return *x.const_data_ptr<float>();
}

void check(const at::Tensor& stream, const at::Tensor& other) {
  TORCH_CHECK(!other.defined() || (other.sizes() == stream.sizes() && other.scalar_type() == stream.scalar_type()),
              "residual_mix: ", other.sizes(), " does not fit the stream ", stream.sizes());
}

template <class T>
T* typed_or_null(const at::Tensor& x) {
  return x.defined() ? typed<T>(x) : nullptr;
}

}  // namespace

void residual_mix(at::Tensor& stream, const at::Tensor& branch, const at::Tensor& x0, const at::Tensor& a, const at::Tensor& b,
                  at::Tensor& before, at::Tensor& y, at::Tensor& rstd, double eps) {
  TORCH_CHECK(stream.dim() == 2, "residual_mix: expected a stream (N, C), got ", stream.sizes());
  for (const at::Tensor& other : {branch, x0, before}) check(y, other);
  TORCH_CHECK(stream.sizes() == y.sizes() && (stream.scalar_type() == y.scalar_type() || stream.scalar_type() == at::kFloat),
              "residual_mix: expected a stream ", y.sizes(), " in float32 or ", y.scalar_type(), ", got ", stream.sizes(), " ",
              stream.scalar_type());
  if (stream.is_cuda()) {
    return on_gpu(cuda::residual_mix, reference::residual_mix)(stream, branch, x0, a, b, before, y, rstd, eps);
  }
  const std::int64_t rows = stream.size(0), n = stream.size(1);
  const float scale = number(a), share = number(b);
  float* statistics = typed_or_null<float>(rstd);
  visit_dtype(y, "residual_mix", [&]<class T>(T) {
    T *branches = typed_or_null<T>(branch), *kept = typed_or_null<T>(before);
    const auto run = [&]<class S>(S* x, const auto& kernel) {
      parallel_for(rows, row_grain(n), [&](std::int64_t first, std::int64_t last) {
        const auto at = [&](T* data) { return data != nullptr ? data + first * n : nullptr; };
        kernel(x + first * n, at(branches), typed<T>(x0) + first * n, at(kept), typed<T>(y) + first * n,
               statistics != nullptr ? statistics + first : nullptr, last - first, n, scale, share, static_cast<float>(eps));
      });
    };
    if (stream.scalar_type() == y.scalar_type()) {
      run(typed<T>(stream), cpu::kernels<T>().mix_rms_norm);
    } else {
      run(typed<float>(stream), cpu::kernels<T>().mix_rms_norm_float);
    }
  });
}

at::ScalarType start_gradient_type(const at::TensorOptions& stream) {
  return stream.device().is_cuda() ? c10::typeMetaToScalarType(stream.dtype()) : at::kFloat;
}

void residual_mix_backward(const NormGradient& norm, at::Tensor& gradient, const at::Tensor& before, const at::Tensor& x0,
                           const at::Tensor& a, const at::Tensor& b, at::Tensor& dx0, bool accumulate, at::Tensor d_a,
                           at::Tensor d_b) {
  for (const at::Tensor& other : {before, x0, norm.dy, norm.y}) check(gradient, other);
  TORCH_CHECK(gradient.dim() == 2 && dx0.sizes() == gradient.sizes() &&
                  dx0.scalar_type() == start_gradient_type(gradient.options()),
              "residual_mix_backward: dx0 ", dx0.sizes(), " ", dx0.scalar_type(), " does not fit ", gradient.sizes());
  TORCH_CHECK(before.defined() == d_a.defined(), "residual_mix_backward: before and d_a belong together");
  TORCH_CHECK(norm.dy.defined() == norm.y.defined() && norm.dy.defined() == norm.rstd.defined(),
              "residual_mix_backward: dy, y and rstd of the norm belong together");
  if (gradient.is_cuda()) {
    return on_gpu(cuda::residual_mix_backward, reference::residual_mix_backward)(norm, gradient, before, x0, a, b, dx0,
                                                                                 accumulate, d_a, d_b);
  }
  if (norm.dy.defined()) rms_norm_backward(norm.dy, norm.y, norm.rstd, gradient, /*accumulate=*/true);
  if (!accumulate) dx0.zero_();
  const std::int64_t rows = gradient.size(0), n = gradient.size(1);
  const float scale = number(a), share = number(b);
  const at::Tensor sums = at::empty({rows, 2}, at::kFloat);
  visit_dtype(gradient, "residual_mix_backward", [&]<class T>(T) {
    T *du = typed<T>(gradient), *kept = typed_or_null<T>(before);
    parallel_for(rows, row_grain(n), [&](std::int64_t first, std::int64_t last) {
      cpu::kernels<T>().mix_backward(du + first * n, kept != nullptr ? kept + first * n : nullptr, typed<T>(x0) + first * n,
                                     typed<float>(dx0) + first * n, typed<float>(sums) + 2 * first, last - first, n, scale,
                                     share);
    });
  });
  double of_before = 0.0, of_x0 = 0.0;
  const float* sum = sums.const_data_ptr<float>();
  for (std::int64_t row = 0; row < rows; ++row, sum += 2) {
    of_before += static_cast<double>(sum[0]);
    of_x0 += static_cast<double>(sum[1]);
  }
  if (d_a.defined()) *d_a.data_ptr<float>() += static_cast<float>(of_before);
  *d_b.data_ptr<float>() += static_cast<float>(of_x0);
}

}  // namespace nanochat::ops
