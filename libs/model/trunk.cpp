// The trunk of the transformer, forward and backward. Names follow the reference's gpt.py; the chain of gradients is
// spelled out in docs/architecture.md.

#include <ATen/ops/empty.h>

#include "model/activations.h"
#include "model/kv_cache.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/relu_squared.h"
#include "ops/rms_norm.h"

namespace nanochat {
namespace {

// The value heads inside the fused projection, (B, T, NKV, D), without a copy.
at::Tensor values_in(const at::Tensor& qkv, const GptConfig& config, std::int64_t batch, std::int64_t time) {
  const std::int64_t heads = config.n_head + 2 * config.n_kv_head;
  return qkv.view({batch, time, heads, config.head_dim()}).narrow(2, config.n_head + config.n_kv_head, config.n_kv_head);
}

// (B, T, ...) -> (1, B * T, ...), a view: rows of documents as one row, in which each position has its own entry of the
// rotary table.
at::Tensor one_row(const at::Tensor& x) { return x.flatten(0, 1).unsqueeze(0); }

}  // namespace

void Gpt::Activations::allocate(const GptConfig& config, const at::TensorOptions& options, std::int64_t batch_size,
                                std::int64_t tokens, bool train) {
  if (batch == batch_size && time == tokens && training == train) return;
  *this = Activations();  // give the old buffers back before asking for the new
  const std::int64_t n = batch_size * tokens, width = config.n_embd, hidden_size = config.intermediate_size;
  const std::int64_t heads = config.n_head, kv_heads = config.n_kv_head, head_dim = config.head_dim();
  const auto make = [&](at::IntArrayRef shape) { return at::empty(shape, options); };
  const auto make_rstd = [&](at::IntArrayRef shape) {
    return train ? at::empty(shape, options.dtype(at::kFloat)) : at::Tensor();
  };
  blocks.resize(train ? static_cast<std::size_t>(config.n_layer) : 1);
  for (Block& block : blocks) {
    block.norm1 = make({n, width});
    block.norm2 = make({n, width});
    block.rstd1 = make_rstd({n});
    block.rstd2 = make_rstd({n});
    block.qkv = make({n, config.qkv_size()});
    block.q = make({batch_size, tokens, heads, head_dim});
    block.k = make({batch_size, tokens, kv_heads, head_dim});
    block.rstd_qk = make_rstd({batch_size, tokens, heads + kv_heads});
    block.hidden = make({n, hidden_size});
  }
  embedded = make({n, width});
  rstd0 = make_rstd({n});
  residual = make({n, width});
  branch = make({n, width});
  activated = make({n, hidden_size});
  final_norm = make({n, width});
  rstd_final = make_rstd({n});
  if (train) {
    d_residual = make({n, width});
    d_norm = make({n, width});
    d_hidden = make({n, hidden_size});
    d_qkv = make({n, config.qkv_size()});
    if (ops::needs_weight_scratch(residual)) d_weight = make({std::max(hidden_size, config.qkv_size()) * width});
  }
  // Set last: if an allocation above throws, the next call starts over.
  batch = batch_size;
  time = tokens;
  training = train;
}

at::Tensor Gpt::trunk(const at::Tensor& ids, Activations& a, KvCache* cache) {
  const std::int64_t batch = ids.size(0), time = ids.size(1);
  const double eps = config_.rms_norm_eps;
  const auto by_rows = cache == nullptr             ? ops::linear
                       : cache->rows_stand_alone() ? ops::linear_rows
                                                   : ops::linear_inference;
  const auto multiply = [&](const at::Tensor& x, const MatrixWeight& w, at::Tensor& y) {
    cache != nullptr && w.packed ? ops::product(x, *w.packed, y) : by_rows(x, w.compute, y);
  };
  at::Tensor start;
  if (cache != nullptr) {
    start = cache->start();
    ensure_positions(cache->capacity());
  } else {
    ensure_positions(time);
  }

  ops::embedding(weights_->embedding.compute, ids.view({-1}), a.branch);
  ops::rms_norm(a.branch, a.embedded, a.rstd0, eps);
  a.residual.copy_(a.embedded);
  observe("embedding", -1, a.embedded);
  ops::rms_norm(a.residual, a.block(0).norm1, a.block(0).rstd1, eps);

  for (std::int64_t l = 0; l < config_.n_layer; ++l) {
    const Layer& layer = weights_->layers[static_cast<std::size_t>(l)];
    Activations::Block& block = a.block(l);
    multiply(block.norm1, layer.qkv, block.qkv);
    const at::Tensor values = values_in(block.qkv, config_, batch, time);
    if (a.documents) {
      at::Tensor q = one_row(block.q), k = one_row(block.k);
      ops::rope_qk_norm(block.qkv, a.document_rope, start, q, k, block.rstd_qk, eps);
    } else {
      ops::rope_qk_norm(block.qkv, rope_, start, block.q, block.k, block.rstd_qk, eps);
    }
    if (a.documents) {
      block.attention = ops::document_attention(block.q, block.k, values, *a.documents);
    } else if (cache != nullptr) {
      block.attention.out = cache->attend(l, block.q, block.k, values);
    } else {
      block.attention = ops::causal_attention(block.q, block.k, values);
    }
    observe("attention", l, block.attention.out);
    const at::Tensor attended = block.attention.out.reshape({batch * time, config_.n_head * config_.head_dim()});
    multiply(attended, layer.attention_out, a.branch);
    ops::add_rms_norm(a.residual, a.branch, block.norm2, block.rstd2, eps);
    multiply(block.norm2, layer.fc1, block.hidden);
    ops::relu_squared(block.hidden, a.activated);
    multiply(a.activated, layer.fc2, a.branch);
    observe("mlp", l, a.branch);
    const bool last = l + 1 == config_.n_layer;
    at::Tensor& next_norm = last ? a.final_norm : a.block(l + 1).norm1;
    at::Tensor& next_rstd = last ? a.rstd_final : a.block(l + 1).rstd1;
    ops::add_rms_norm(a.residual, a.branch, next_norm, next_rstd, eps);
  }
  return a.final_norm;
}

void Gpt::trunk_backward(const at::Tensor& ids, Activations& a, const at::Tensor& dx) {
  const std::int64_t batch = a.batch, time = a.time, n = batch * time;
  ops::rms_norm_backward(dx, a.final_norm, a.rstd_final, a.d_residual, /*accumulate=*/false);

  const auto weight_gradient = [&](const at::Tensor& dy, const at::Tensor& x, MatrixWeight& weight) {
    at::Tensor scratch;
    if (a.d_weight.defined()) scratch = a.d_weight.narrow(0, 0, weight.value.numel()).view(weight.value.sizes());
    ops::linear_backward_weight(dy, x, weight.grad, scratch);
  };
  for (std::int64_t l = config_.n_layer - 1; l >= 0; --l) {
    Layer& layer = weights_->layers[static_cast<std::size_t>(l)];
    Activations::Block& block = a.block(l);

    ops::relu_squared(block.hidden, a.activated);
    weight_gradient(a.d_residual, a.activated, layer.fc2);
    ops::linear_backward_input(a.d_residual, layer.fc2.compute, a.d_hidden);
    ops::relu_squared_backward(a.d_hidden, block.hidden, a.d_hidden);
    weight_gradient(a.d_hidden, block.norm2, layer.fc1);
    ops::linear_backward_input(a.d_hidden, layer.fc1.compute, a.d_norm);
    ops::rms_norm_backward(a.d_norm, block.norm2, block.rstd2, a.d_residual, /*accumulate=*/true);
    observe("gradient of mlp", l, a.d_residual);

    const at::Tensor attended = block.attention.out.reshape({n, config_.n_head * config_.head_dim()});
    weight_gradient(a.d_residual, attended, layer.attention_out);
    at::Tensor d_attended = at::empty(attended.sizes(), attended.options());
    ops::linear_backward_input(a.d_residual, layer.attention_out.compute, d_attended);
    const at::Tensor values = values_in(block.qkv, config_, batch, time), d_heads = d_attended.view(block.q.sizes());
    if (a.documents) {
      const ops::AttentionBackward d =
          ops::document_attention_backward(d_heads, block.q, block.k, values, block.attention, *a.documents);
      ops::rope_qk_norm_backward(d.dq.contiguous(), d.dk.contiguous(), d.dv.contiguous(), one_row(block.q),
                                 one_row(block.k), block.rstd_qk, a.document_rope, a.d_qkv);
    } else {
      const ops::AttentionBackward d =
          ops::causal_attention_backward(d_heads, block.q, block.k, values, block.attention);
      ops::rope_qk_norm_backward(d.dq.contiguous(), d.dk.contiguous(), d.dv.contiguous(), block.q, block.k,
                                 block.rstd_qk, rope_, a.d_qkv);
    }
    block.attention = {};  // the largest buffers that are not reused: give them back as soon as they are read
    weight_gradient(a.d_qkv, block.norm1, layer.qkv);
    ops::linear_backward_input(a.d_qkv, layer.qkv.compute, a.d_norm);
    ops::rms_norm_backward(a.d_norm, block.norm1, block.rstd1, a.d_residual, /*accumulate=*/true);
    observe("gradient of attention", l, a.d_residual);
  }
  ops::rms_norm_backward(a.d_residual, a.embedded, a.rstd0, a.d_norm, /*accumulate=*/false);
  ops::embedding_backward(a.d_norm, ids.view({-1}), weights_->embedding.grad);
}

}  // namespace nanochat
