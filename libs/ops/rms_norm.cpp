#include "ops/rms_norm.h"

#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/reference.h"

namespace nanochat::ops {
namespace {

float* optional_rows(const at::Tensor& rstd) { return rstd.defined() ? typed<float>(rstd) : nullptr; }

}  // namespace

void rms_norm(const at::Tensor& x, at::Tensor& y, at::Tensor& rstd, double eps) {
  const std::int64_t n = x.size(-1);
  TORCH_CHECK(x.sizes() == y.sizes(), "rms_norm: x ", x.sizes(), " and y ", y.sizes(), " differ");
  if (x.is_cuda()) return on_gpu(cuda::rms_norm, reference::rms_norm)(x, y, rstd, eps);
  float* scale = optional_rows(rstd);
  visit_dtype(x, "rms_norm", [&]<class T>(T) {
    parallel_for(x.numel() / n, row_grain(n), [&](std::int64_t begin, std::int64_t end) {
      cpu::kernels<T>().rms_norm(typed<T>(x) + begin * n, typed<T>(y) + begin * n, scale != nullptr ? scale + begin : nullptr,
                                 end - begin, n, static_cast<float>(eps));
    });
  });
}

void add_rms_norm(at::Tensor& residual, const at::Tensor& branch, at::Tensor& y, at::Tensor& rstd, double eps) {
  const std::int64_t n = residual.size(-1);
  TORCH_CHECK(residual.numel() == branch.numel() && residual.numel() == y.numel(), "add_rms_norm: sizes ", residual.sizes(),
              ", ", branch.sizes(), " and ", y.sizes(), " differ");
  TORCH_CHECK(branch.scalar_type() == y.scalar_type() &&
                  (residual.scalar_type() == y.scalar_type() || residual.scalar_type() == at::kFloat),
              "add_rms_norm: expected a residual in float32 or ", y.scalar_type(), ", got ", residual.scalar_type());
  if (residual.is_cuda()) return on_gpu(cuda::add_rms_norm, reference::add_rms_norm)(residual, branch, y, rstd, eps);
  float* scale = optional_rows(rstd);
  visit_dtype(y, "add_rms_norm", [&]<class T>(T) {
    const auto run = [&]<class S>(S* stream, const auto& kernel) {
      parallel_for(residual.numel() / n, row_grain(n), [&](std::int64_t begin, std::int64_t end) {
        kernel(stream + begin * n, typed<T>(branch) + begin * n, typed<T>(y) + begin * n,
               scale != nullptr ? scale + begin : nullptr, end - begin, n, static_cast<float>(eps));
      });
    };
    if (residual.scalar_type() == y.scalar_type()) {
      run(typed<T>(residual), cpu::kernels<T>().add_rms_norm);
    } else {
      run(typed<float>(residual), cpu::kernels<T>().add_rms_norm_float);
    }
  });
}

void rms_norm_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& rstd, at::Tensor& dx, bool accumulate) {
  const std::int64_t n = y.size(-1);
  TORCH_CHECK(dy.numel() == y.numel() && dx.numel() == y.numel() && rstd.numel() == y.numel() / n, "rms_norm_backward: sizes ",
              dy.sizes(), ", ", y.sizes(), ", ", dx.sizes(), ", ", rstd.sizes(), " differ");
  if (y.is_cuda()) return on_gpu(cuda::rms_norm_backward, reference::rms_norm_backward)(dy, y, rstd, dx, accumulate);
  visit_dtype(y, "rms_norm_backward", [&]<class T>(T) {
    parallel_for(y.numel() / n, row_grain(n), [&](std::int64_t begin, std::int64_t end) {
      cpu::kernels<T>().rms_norm_backward(typed<T>(dy) + begin * n, typed<T>(y) + begin * n, typed<float>(rstd) + begin,
                                          typed<T>(dx) + begin * n, end - begin, n, accumulate);
    });
  });
}

}  // namespace nanochat::ops
