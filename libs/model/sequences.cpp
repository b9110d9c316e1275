#include "model/sequences.h"

#include <c10/util/Exception.h>

namespace nanochat {
namespace {

// (B, T, ...) -> (1, B * T, ...), a view: documents have a row of the rotary table for each token of the batch.
at::Tensor one_row(const at::Tensor& x) { return x.flatten(0, 1).unsqueeze(0); }

}  // namespace

void Sequences::rotate(const at::Tensor& qkv, at::Tensor& q, at::Tensor& k, at::Tensor& rstd, double eps) const {
  if (!documents) return ops::rope_qk_norm(qkv, rope, start, q, k, rstd, eps);
  at::Tensor q_row = one_row(q), k_row = one_row(k);
  ops::rope_qk_norm(qkv, rope, start, q_row, k_row, rstd, eps);
}

void Sequences::rotate_backward(const ops::AttentionBackward& d, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& rstd, at::Tensor& d_qkv) const {
  const at::Tensor dq = d.dq.contiguous(), dk = d.dk.contiguous(), dv = d.dv.contiguous();
  if (!documents) return ops::rope_qk_norm_backward(dq, dk, dv, q, k, rstd, rope, d_qkv);
  ops::rope_qk_norm_backward(dq, dk, dv, one_row(q), one_row(k), rstd, rope, d_qkv);
}

ops::AttentionScope Sequences::scope(const LayerPlan& plan) const {
  ops::AttentionScope scope = attention_scope(plan);
  if (documents) scope.documents = &*documents;
  return scope;
}

ops::AttentionForward Sequences::attend(std::int64_t layer, const LayerPlan& plan, const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v) const {
  if (cache == nullptr) return ops::causal_attention(q, k, v, scope(plan));
  ops::AttentionForward forward;
  forward.out = cache->attend(layer, q, k, v);
  return forward;
}

ops::AttentionBackward Sequences::attend_backward(const LayerPlan& plan, const at::Tensor& d_out, const at::Tensor& q,
                                                  const at::Tensor& k, const at::Tensor& v,
                                                  const ops::AttentionForward& forward) const {
  TORCH_CHECK(cache == nullptr, "there is no backward pass through a key-value cache");
  return ops::causal_attention_backward(d_out, q, k, v, forward, scope(plan));
}

}  // namespace nanochat
