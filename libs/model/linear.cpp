#include "model/linear.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "ops/linear.h"

namespace nanochat {

void Linear::forward(const at::Tensor& x, at::Tensor& y, LinearMode mode) const {
  if (mode == LinearMode::kTraining || mode == LinearMode::kFp8Training) return ops::linear(x, weight_->compute, y);
  if (weight_->packed) return ops::product(x, *weight_->packed, y);  // batch-invariant, and the fastest
  mode == LinearMode::kBatchInvariant ? ops::linear_rows(x, weight_->compute, y)
                                      : ops::linear_inference(x, weight_->compute, y);
}

bool Linear::takes_fp8(std::int64_t tokens) const {
  constexpr std::int64_t kFewest = 128;
  const at::Tensor& w = weight_->compute;
  return std::min(w.size(0), w.size(1)) >= kFewest && ops::fits_fp8(w.size(0), w.size(1)) && ops::fits_fp8(tokens, w.size(0));
}

void Linear::forward(const at::Tensor& x, at::Tensor& y, LinearMode mode, Fp8Kept& kept) const {
  kept.x = kept.weight = {};
  if (mode != LinearMode::kFp8Training || !takes_fp8(x.size(0))) return forward(x, y, mode);
  const at::Tensor largest = kept.largest.defined() ? kept.largest : ops::largest_magnitude(x);
  prepare_fp8(ops::to_fp8(x, largest, ops::Fp8Format::kE4M3, ops::kFp8BothOrders), kept);
  forward_fp8(y, kept);
}

void Linear::prepare_fp8(ops::Fp8Matrix x, Fp8Kept& kept) const {
  kept.x = std::move(x);
  kept.largest_weight = ops::largest_magnitude(weight_->compute);
  kept.weight = ops::to_fp8(weight_->compute, kept.largest_weight, ops::Fp8Format::kE4M3, ops::kFp8BothOrders);
}

void Linear::forward_fp8(at::Tensor& y, Fp8Kept& kept) const {
  ops::fp8_linear(kept.x, kept.weight, y);
  kept.x.rows = kept.weight.rows = at::Tensor();
}

void Linear::backward_fp8(const ops::Fp8Matrix& dy, at::Tensor& dx, Fp8Kept& kept) const {
  if (weight_->grad.defined()) ops::fp8_linear_backward_weight(dy, kept.x, weight_->grad);
  ops::fp8_linear_backward_input(dy, kept.weight, dx);
  kept.x = kept.weight = {};
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

void Linear::backward(const at::Tensor& dy, const at::Tensor& dy_largest, const at::Tensor& x, at::Tensor& dx,
                      const at::Tensor& scratch, Fp8Kept& kept) const {
  if (!kept.x.columns.defined()) return backward(dy, x, dx, scratch);
  const at::Tensor largest = dy_largest.defined() ? dy_largest : ops::largest_magnitude(dy);
  backward_fp8(ops::to_fp8(dy, largest, ops::Fp8Format::kE5M2, {.rows = true, .columns = weight_->grad.defined()}), dx, kept);
}

at::Tensor Linear::make_scratch(std::int64_t elements, const at::TensorOptions& options) {
  return ops::needs_weight_scratch(at::empty({0}, options)) ? at::empty({elements}, options) : at::Tensor();
}

}  // namespace nanochat
