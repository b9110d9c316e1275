#include "model/mlp_block.h"

#include <ATen/ops/empty.h>

#include "ops/relu_squared.h"

namespace nanochat {

MlpBlock::MlpBlock(std::int64_t layer, Weights& weights)
    : layer_(layer), in_(weights.at(layer, WeightSlot::kMlpIn)), out_(weights.at(layer, WeightSlot::kMlpOut)) {}

MlpBlock::Kept MlpBlock::make_kept(std::int64_t tokens, const at::TensorOptions& options, bool train) const {
  Kept kept;
  kept.input = Reading::make(tokens, out_.out_features(), options, train);
  kept.activated = at::empty({tokens, in_.out_features()}, options);
  if (train) kept.of_out.largest = at::empty({1}, options.dtype(at::kFloat));
  return kept;
}

MlpBlock::Scratch MlpBlock::make_scratch(std::int64_t tokens, const at::TensorOptions& options) const {
  return {at::empty({tokens, in_.out_features()}, options), at::empty({1}, options.dtype(at::kFloat))};
}

void MlpBlock::forward_hidden(const Pass& pass, Kept& kept) const {
  kept.of_in.largest = pass.largest_reading;
  in_.forward(kept.input.y, kept.activated, pass.mode, kept.of_in);
  if (pass.mode == LinearMode::kFp8Training) {
    ops::relu_squared(kept.activated, kept.activated, kept.of_out.largest);
  } else {
    ops::relu_squared(kept.activated, kept.activated);
  }
  out_.prepare(kept.activated, pass.mode, kept.of_out);
}

void MlpBlock::forward(const Pass& pass, Kept& kept, at::Tensor& branch) const {
  forward_hidden(pass, kept);
  out_.multiply(kept.activated, branch, pass.mode, kept.of_out);
  pass.observe("mlp", layer_, branch);
}

void MlpBlock::backward(const Pass& pass, Kept& kept, const at::Tensor& d_branch, Scratch& scratch, at::Tensor& d_input) const {
  out_.backward(d_branch, at::Tensor(), kept.activated, scratch.d_hidden, pass.weight_scratch, kept.of_out);
  if (pass.mode == LinearMode::kFp8Training) {
    ops::relu_squared_backward(scratch.d_hidden, kept.activated, scratch.d_hidden, scratch.largest);
  } else {
    ops::relu_squared_backward(scratch.d_hidden, kept.activated, scratch.d_hidden);
  }
  in_.backward(scratch.d_hidden, scratch.largest, kept.input.y, d_input, pass.weight_scratch, kept.of_in);
}

}  // namespace nanochat
