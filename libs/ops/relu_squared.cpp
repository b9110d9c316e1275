#include "ops/relu_squared.h"

#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/reference.h"

namespace nanochat::ops {

void relu_squared(const at::Tensor& x, at::Tensor& y) {
  TORCH_CHECK(x.numel() == y.numel(), "relu_squared: ", x.sizes(), " into ", y.sizes());
  if (x.is_cuda()) return on_gpu(cuda::relu_squared, reference::relu_squared)(x, y);
  visit_dtype(x, "relu_squared", [&]<class T>(T) {
    parallel_for(x.numel(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      cpu::kernels<T>().relu_squared(typed<T>(x) + begin, typed<T>(y) + begin, end - begin);
    });
  });
}

void relu_squared_normalised(const at::Tensor& x, at::Tensor& y, double eps) {
  TORCH_CHECK(x.dim() == 2 && y.dim() == 2 && x.size(0) == y.size(0), "relu_squared_normalised: x ", x.sizes(),
              " does not fit y ", y.sizes());
  cuda::relu_squared_normalised(x, y, eps);
}

void relu_squared_backward(const at::Tensor& dy, const at::Tensor& y, at::Tensor& dx) {
  TORCH_CHECK(dy.numel() == y.numel() && dx.numel() == y.numel(), "relu_squared_backward: sizes ", dy.sizes(), ", ", y.sizes(),
              " and ", dx.sizes(), " differ");
  if (y.is_cuda()) return on_gpu(cuda::relu_squared_backward, reference::relu_squared_backward)(dy, y, dx);
  visit_dtype(y, "relu_squared_backward", [&]<class T>(T) {
    parallel_for(y.numel(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      cpu::kernels<T>().relu_squared_backward(typed<T>(dy) + begin, typed<T>(y) + begin, typed<T>(dx) + begin, end - begin);
    });
  });
}

}  // namespace nanochat::ops
