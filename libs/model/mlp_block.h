#pragma once
// Internal to model: the MLP of one layer, from a reading of the residual stream to
// the branch that is added to it: two linear layers with ReLU squared between them.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/pass.h"
#include "model/residual_stream.h"

namespace nanochat {

class MlpBlock {
 public:
  // Kept by forward() for backward(). N tokens, F = hidden size of the MLP.
  struct Kept {
    Reading input;
    // (N, F): after the activation, whose backward pass needs only its output; in a pass in 8 bits before it.
    at::Tensor hidden;
    Fp8Kept of_in, of_out;
  };
  // Buffers of backward(), shared by all layers.
  struct Scratch {
    at::Tensor d_hidden;  // (N, F)
  };

  MlpBlock(std::int64_t layer, Weights& weights);

  Kept make_kept(std::int64_t tokens, const at::TensorOptions& options, bool train) const;
  Scratch make_scratch(std::int64_t tokens, const at::TensorOptions& options) const;

  // The part of forward() that backward() needs: all but the last product.
  void forward_hidden(const Pass& pass, Kept& kept) const;
  // branch (N, C) = mlp(kept.input).
  void forward(const Pass& pass, Kept& kept, at::Tensor& branch) const;
  // d_input (N, C) from the gradient of the branch; accumulates the weights' gradients.
  void backward(const Pass& pass, Kept& kept, const at::Tensor& d_branch, Scratch& scratch, at::Tensor& d_input) const;

 private:
  // Whether both matrices are multiplied in 8 bits.
  bool uses_fp8(const Pass& pass) const;
  void backward_fp8(Kept& kept, const at::Tensor& d_branch, Scratch& scratch, at::Tensor& d_input) const;

  std::int64_t layer_;
  Linear in_, out_;
};

}  // namespace nanochat
