#pragma once
// Internal to model: a linear layer without bias, y = x wᵀ. The one place where a weight is multiplied with
// activations and where its gradient is computed. Another form of weight (packed, quantised, with adapters) needs a
// change only here. The exception is the loss, which the head computes in chunks of tokens (ops/cross_entropy.h).

#include <ATen/core/Tensor.h>

#include "model/weights.h"
#include "ops/fp8.h"
#include "ops/linear.h"

namespace nanochat {

enum class LinearMode {
  kTraining,        // forward and backward passes, and evaluation without a cache
  kFp8Training,     // forward and backward passes in 8 bits where the shape fits (takes_fp8()), else as kTraining
  kInference,       // uses the fastest kernel for the number of rows
  kBatchInvariant,  // inference in which a row does not depend on the other rows, bit for bit
};

// What a forward pass in 8 bits leaves for the backward pass. Empty after a pass in another mode.
struct Fp8Kept {
  // float32 (1): the largest magnitude in x, or a bound of it. Set before forward() where it is known, else measured.
  at::Tensor largest;
  at::Tensor largest_weight;  // float32 (1): that of the weight
  ops::Fp8Matrix x, weight;  // by columns
};

class Linear {
 public:
  explicit Linear(Weight& weight) : weight_(&weight) {}  // which must outlive this

  // x: (N, K), y: (N, M) of the compute type, for a weight (M, K).
  void forward(const at::Tensor& x, at::Tensor& y, LinearMode mode) const;
  // The same for a pass that may be in 8 bits, with `kept` for backward().
  void forward(const at::Tensor& x, at::Tensor& y, LinearMode mode, Fp8Kept& kept) const;
  // The same for serving on a GPU, with what stands before and behind the product.
  void forward(const at::Tensor& x, at::Tensor& y, const ops::LinearFusion& fusion) const;
  // y += x wᵀ.
  void add(const at::Tensor& x, at::Tensor& y) const { ops::add_linear(x, weight_->compute, y); }
  // dx (N, K) = dy w; and adds dyᵀ x to the weight's gradient if it is trained. scratch: make_scratch() of a weight at
  // least as large.
  void backward(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dx, const at::Tensor& scratch) const;
  // The same after a forward pass with `kept`, which it empties. dy_largest: the largest magnitude in dy, float32 (1), or
  // undefined: measured if needed.
  void backward(const at::Tensor& dy, const at::Tensor& dy_largest, const at::Tensor& x, at::Tensor& dx,
                const at::Tensor& scratch, Fp8Kept& kept) const;
  // Where whoever computes x and dy passes them to 8 bits: prepare_fp8() takes x both ways, and forward_fp8() is the product, which
  // a forward pass that runs again for a backward pass does not need.
  void prepare_fp8(ops::Fp8Matrix x, Fp8Kept& kept) const;
  void forward_fp8(at::Tensor& y, Fp8Kept& kept) const;
  void backward_fp8(const ops::Fp8Matrix& dy, at::Tensor& dx, Fp8Kept& kept) const;
  // Whether a pass of kFp8Training over so many tokens multiplies in 8 bits: rows and columns are multiples of 16, and the
  // weight's at least 128, as in the reference. Smaller products gain nothing.
  bool takes_fp8(std::int64_t tokens) const;
  // Scratch for backward() of weights of up to `elements`; undefined if it needs none.
  static at::Tensor make_scratch(std::int64_t elements, const at::TensorOptions& options);

  std::int64_t out_features() const { return weight_->compute.size(0); }
  Weight& weight() const { return *weight_; }

 private:
  Weight* weight_;
};

}  // namespace nanochat
