#include "model/mlp_block.h"

#include <ATen/ops/empty.h>

#include "ops/relu_squared.h"

namespace nanochat {

MlpBlock::MlpBlock(std::int64_t layer, Weights& weights)
    : layer_(layer), in_(weights.at(layer, WeightSlot::kMlpIn)), out_(weights.at(layer, WeightSlot::kMlpOut)) {}

MlpBlock::Kept MlpBlock::make_kept(std::int64_t tokens, const at::TensorOptions& options, bool train) const {
  return {Reading::make(tokens, out_.out_features(), options, train), at::empty({tokens, in_.out_features()}, options)};
}

MlpBlock::Scratch MlpBlock::make_scratch(std::int64_t tokens, const at::TensorOptions& options) const {
  return {at::empty({tokens, in_.out_features()}, options)};
}

void MlpBlock::forward_hidden(const Pass& pass, Kept& kept) const {
  in_.forward(kept.input.y, kept.activated, pass.mode);
  ops::relu_squared(kept.activated, kept.activated);
}

void MlpBlock::forward(const Pass& pass, Kept& kept, at::Tensor& branch) const {
  forward_hidden(pass, kept);
  out_.forward(kept.activated, branch, pass.mode);
  pass.observe("mlp", layer_, branch);
}

void MlpBlock::backward(const Pass& pass, const Kept& kept, const at::Tensor& d_branch, Scratch& scratch,
                        at::Tensor& d_input) const {
  out_.backward(d_branch, kept.activated, scratch.d_hidden, pass.weight_scratch);
  ops::relu_squared_backward(scratch.d_hidden, kept.activated, scratch.d_hidden);
  in_.backward(scratch.d_hidden, kept.input.y, d_input, pass.weight_scratch);
}

}  // namespace nanochat
