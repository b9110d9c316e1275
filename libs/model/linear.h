#pragma once
// Internal to model: a linear layer without bias, y = x wᵀ. The one place where a weight is multiplied with
// activations and where its gradient is computed. Another form of weight (packed, quantised, with adapters) needs a
// change only here. The exception is the loss, which the head computes in chunks of tokens (ops/cross_entropy.h).

#include <ATen/core/Tensor.h>

#include "model/weights.h"
#include "ops/linear.h"

namespace nanochat {

enum class LinearMode {
  kTraining,        // forward and backward passes, and evaluation without a cache
  kInference,       // uses the fastest kernel for the number of rows
  kBatchInvariant,  // inference in which a row does not depend on the other rows, bit for bit
};

class Linear {
 public:
  explicit Linear(Weight& weight) : weight_(&weight) {}  // which must outlive this

  // x: (N, K), y: (N, M) of the compute type, for a weight (M, K).
  void forward(const at::Tensor& x, at::Tensor& y, LinearMode mode) const;
  // The same for serving on a GPU, with what stands before and behind the product.
  void forward(const at::Tensor& x, at::Tensor& y, const ops::LinearFusion& fusion) const;
  // y += x wᵀ.
  void add(const at::Tensor& x, at::Tensor& y) const { ops::add_linear(x, weight_->compute, y); }
  // dx (N, K) = dy w; and adds dyᵀ x to the weight's gradient if it is trained. scratch: make_scratch() of a weight at
  // least as large.
  void backward(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dx, const at::Tensor& scratch) const;
  // Scratch for backward() of weights of up to `elements`; undefined if it needs none.
  static at::Tensor make_scratch(std::int64_t elements, const at::TensorOptions& options);

  std::int64_t out_features() const { return weight_->compute.size(0); }
  Weight& weight() const { return *weight_; }

 private:
  Weight* weight_;
};

}  // namespace nanochat
