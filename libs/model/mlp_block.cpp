#include "model/mlp_block.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "ops/relu_squared.h"

namespace nanochat {

MlpBlock::MlpBlock(std::int64_t layer, Weights& weights)
    : layer_(layer), in_(weights.at(layer, WeightSlot::kMlpIn)), out_(weights.at(layer, WeightSlot::kMlpOut)) {}

MlpBlock::Kept MlpBlock::make_kept(std::int64_t tokens, const at::TensorOptions& options, bool train) const {
  Kept kept;
  kept.input = Reading::make(tokens, out_.out_features(), options, train);
  kept.hidden = at::empty({tokens, in_.out_features()}, options);
  return kept;
}

MlpBlock::Scratch MlpBlock::make_scratch(std::int64_t tokens, const at::TensorOptions& options) const {
  return {at::empty({tokens, in_.out_features()}, options)};
}

bool MlpBlock::uses_fp8(const Pass& pass) const {
  const std::int64_t tokens = pass.sequences.tokens();
  return pass.mode == LinearMode::kFp8Training && in_.takes_fp8(tokens) && out_.takes_fp8(tokens);
}

void MlpBlock::forward_hidden(const Pass& pass, Kept& kept) const {
  kept.of_in.largest = pass.largest_reading;
  in_.forward(kept.input.y, kept.hidden, pass.mode, kept.of_in);
  if (!uses_fp8(pass)) return ops::relu_squared(kept.hidden, kept.hidden);
  kept.of_out.largest = ops::largest_relu_squared(kept.hidden);
  out_.prepare_fp8(ops::relu_squared_to_fp8(kept.hidden, kept.of_out.largest), kept.of_out);
}

void MlpBlock::forward(const Pass& pass, Kept& kept, at::Tensor& branch) const {
  forward_hidden(pass, kept);
  uses_fp8(pass) ? out_.forward_fp8(branch, kept.of_out) : out_.forward(kept.hidden, branch, pass.mode);
  pass.observe("mlp", layer_, branch);
}

void MlpBlock::backward(const Pass& pass, Kept& kept, const at::Tensor& d_branch, Scratch& scratch, at::Tensor& d_input) const {
  if (uses_fp8(pass)) return backward_fp8(kept, d_branch, scratch, d_input);
  out_.backward(d_branch, kept.hidden, scratch.d_hidden, pass.weight_scratch);
  ops::relu_squared_backward(scratch.d_hidden, kept.hidden, scratch.d_hidden);
  in_.backward(scratch.d_hidden, kept.input.y, d_input, pass.weight_scratch);
}

void MlpBlock::backward_fp8(Kept& kept, const at::Tensor& d_branch, Scratch& scratch, at::Tensor& d_input) const {
  // The gradient of the activation is a product of rows of d_branch and columns of the weight, whose norms bound it; times
  // twice the root of the activation. Gradients have 30 powers of two to spare, and so a loose bound costs them nothing.
  const at::Tensor largest_row = ops::largest_row_norm(d_branch);
  const double column = std::sqrt(
      static_cast<double>(d_branch.size(1)));  // norm of a column of the weight, by its largest number
  const at::Tensor largest = largest_row.mul(kept.of_out.largest_weight).mul_(kept.of_out.largest.sqrt()).mul_(2.0 * column);
  out_.backward_fp8(ops::to_fp8(d_branch, largest_row, ops::Fp8Format::kE5M2, ops::kFp8BothOrders), scratch.d_hidden,
                    kept.of_out);
  in_.backward_fp8(ops::relu_squared_backward_to_fp8(scratch.d_hidden, kept.hidden, largest), d_input, kept.of_in);
}

}  // namespace nanochat
