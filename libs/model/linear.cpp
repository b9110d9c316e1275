#include "model/linear.h"

#include <ATen/ops/empty.h>

#include "ops/linear.h"

namespace nanochat {

void Linear::forward(const at::Tensor& x, at::Tensor& y, LinearMode mode) const {
  if (mode == LinearMode::kTraining) return ops::linear(x, weight_->compute, y);
  if (weight_->packed) return ops::product(x, *weight_->packed, y);  // batch-invariant, and the fastest
  mode == LinearMode::kBatchInvariant ? ops::linear_rows(x, weight_->compute, y)
                                      : ops::linear_inference(x, weight_->compute, y);
}

void Linear::forward(const at::Tensor& x, at::Tensor& y, const ops::LinearFusion& fusion) const {
  ops::linear_rows(x, weight_->compute, y, fusion);
}

void Linear::backward(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dx, const at::Tensor& scratch) const {
  if (weight_->grad.defined()) {
    at::Tensor product;
    if (scratch.defined()) product = scratch.narrow(0, 0, weight_->grad.numel()).view(weight_->grad.sizes());
    ops::linear_backward_weight(dy, x, weight_->grad, product);
  }
  ops::linear_backward_input(dy, weight_->compute, dx);
}

at::Tensor Linear::make_scratch(std::int64_t elements, const at::TensorOptions& options) {
  return ops::needs_weight_scratch(at::empty({0}, options)) ? at::empty({elements}, options) : at::Tensor();
}

}  // namespace nanochat
