#include "model/attention_block.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include "ops/value_embedding.h"

namespace nanochat {

AttentionBlock::AttentionBlock(const GptConfig& config, std::int64_t layer, Weights& weights)
    : layer_(layer), n_head_(config.n_head), n_kv_head_(config.n_kv_head), head_dim_(config.head_dim()),
      eps_(config.rms_norm_eps), plan_(plan_layer(config, layer)), qkv_(weights.at(layer, WeightSlot::kQkv)),
      out_(weights.at(layer, WeightSlot::kAttentionOut)) {
  if (!plan_.value_embedding) return;
  value_gate_ = &weights.at(layer, WeightSlot::kValueGate);
  value_table_ = &weights.at(layer, WeightSlot::kValueEmbedding);
}

AttentionBlock::Kept AttentionBlock::make_kept(std::int64_t batch, std::int64_t time, const at::TensorOptions& options,
                                               bool train) const {
  Kept kept;
  kept.input = Reading::make(batch * time, out_.out_features(), options, train);
  kept.qkv = at::empty({batch * time, qkv_.out_features()}, options);
  kept.q = at::empty({batch, time, n_head_, head_dim_}, options);
  kept.k = at::empty({batch, time, n_kv_head_, head_dim_}, options);
  if (train) kept.rstd_qk = at::empty({batch, time, n_head_ + n_kv_head_}, options.dtype(at::kFloat));
  if (train && plan_.value_embedding) kept.value_gate = at::empty({batch * time, n_kv_head_}, options.dtype(at::kFloat));
  return kept;
}

AttentionBlock::Scratch AttentionBlock::make_scratch(std::int64_t tokens, const at::TensorOptions& options) const {
  return {at::empty({tokens, qkv_.out_features()}, options)};
}

at::Tensor AttentionBlock::values(const Pass& pass, const at::Tensor& qkv) const {
  return qkv.view({pass.sequences.batch, pass.sequences.time, n_head_ + 2 * n_kv_head_, head_dim_})
      .narrow(2, n_head_ + n_kv_head_, n_kv_head_);
}

at::Tensor AttentionBlock::by_token(const Pass& pass, const at::Tensor& heads) const {
  return heads.reshape({pass.sequences.tokens(), n_head_ * head_dim_});
}

at::Tensor AttentionBlock::flat_values(const at::Tensor& qkv) const {
  return qkv.view({qkv.size(0), n_head_ + 2 * n_kv_head_, head_dim_}).narrow(1, n_head_ + n_kv_head_, n_kv_head_);
}

void AttentionBlock::forward(const Pass& pass, Kept& kept, at::Tensor& branch) const {
  kept.of_qkv.largest = pass.largest_reading;
  qkv_.forward(kept.input.y, kept.qkv, pass.mode, kept.of_qkv);
  if (plan_.value_embedding) {
    ops::add_value_embedding(flat_values(kept.qkv), kept.input.y, value_gate_->compute, value_table_->compute, pass.tokens.ids,
                             kept.value_gate);
  }
  pass.sequences.rotate(kept.qkv, kept.q, kept.k, kept.rstd_qk, eps_);
  kept.attention = {};  // another layer's, where one has the buffers of all
  kept.attention = pass.sequences.attend(layer_, plan_, kept.q, kept.k, values(pass, kept.qkv));
  pass.observe("attention", layer_, kept.attention.out);
  out_.forward(by_token(pass, kept.attention.out), branch, pass.mode, kept.of_out);
}

void AttentionBlock::backward(const Pass& pass, Kept& kept, const at::Tensor& d_branch, Scratch& scratch,
                              at::Tensor& d_input) const {
  const at::Tensor attended = by_token(pass, kept.attention.out);
  at::Tensor d_attended = at::empty(attended.sizes(), attended.options());
  out_.backward(d_branch, at::Tensor(), attended, d_attended, pass.weight_scratch, kept.of_out);
  pass.sequences.rotate_backward(pass.sequences.attend_backward(plan_, d_attended.view(kept.q.sizes()), kept.q, kept.k,
                                                                values(pass, kept.qkv), kept.attention),
                                 kept.q, kept.k, kept.rstd_qk, scratch.d_qkv);
  kept.attention = {};  // the largest buffers that are not reused: give them back as soon as they are read
  qkv_.backward(scratch.d_qkv, at::Tensor(), kept.input.y, d_input, pass.weight_scratch, kept.of_qkv);
  if (plan_.value_embedding) {
    at::Tensor d_gate = value_gate_->grad.defined() ? value_gate_->grad : at::zeros_like(value_gate_->value, at::kFloat);
    ops::add_value_embedding_backward(flat_values(scratch.d_qkv), kept.input.y, value_gate_->compute, value_table_->compute,
                                      pass.tokens.ids, kept.value_gate, d_input, d_gate, value_table_->grad, pass.tokens.order);
  }
}

}  // namespace nanochat
