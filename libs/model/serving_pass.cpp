#include "model/serving_pass.h"

#include <ATen/ops/clamp_min.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <c10/util/Exception.h>

#include "model/gpt.h"
#include "model/kv_cache.h"
#include "ops/embedding.h"
#include "ops/relu_squared.h"
#include "ops/residual_mix.h"
#include "ops/rms_norm.h"
#include "ops/sample.h"
#include "ops/smear.h"
#include "ops/value_embedding.h"

namespace nanochat {
namespace {

// Rows that our products take together with what stands around them. In bfloat16 cuBLAS is faster with more: with 32 rows a
// step of a 20-layer model takes 1.26 ms instead of 1.68 on an H200 (benchmarks/gpu_serving_benchmark.cpp). In float32 one
// kernel serves all, so that a row is always computed alike.
constexpr std::int64_t kMostFusedRows = 16;

}  // namespace

bool ServingPass::fuses(std::int64_t rows) const { return batch_invariant_ || rows <= kMostFusedRows; }

ServingPass::ServingPass(Gpt& model, std::int64_t tokens, std::int64_t logit_rows, bool batch_invariant)
    : head_(model.weights().at(kAfterLayers, WeightSlot::kHead)),
      table_(model.weights().at(kBeforeLayers, WeightSlot::kTokenEmbedding).compute), eps_(model.config().rms_norm_eps),
      batch_invariant_(batch_invariant || model.dtype() == at::kFloat) {
  const GptConfig& config = model.config();
  Weights& weights = model.weights();
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
    const LayerPlan plan = plan_layer(config, layer);
    const auto weight = [&](WeightSlot slot) { return plan.value_embedding ? &weights.at(layer, slot) : nullptr; };
    layers_.push_back({plan, Linear(weights.at(layer, WeightSlot::kQkv)), Linear(weights.at(layer, WeightSlot::kAttentionOut)),
                       Linear(weights.at(layer, WeightSlot::kMlpIn)), Linear(weights.at(layer, WeightSlot::kMlpOut)),
                       weight(WeightSlot::kValueGate), weight(WeightSlot::kValueEmbedding)});
  }
  rope_ = model.rope_for(config.sequence_len);
  head_options_.vocab_size = config.vocab_size;
  head_options_.softcap = config.softcap;
  const auto room = [&](at::IntArrayRef shape) { return at::empty(shape, table_.options()); };
  ids_ = at::empty({tokens}, table_.options().dtype(at::kInt));
  residual_ = room({tokens, config.n_embd});
  norm_ = room({tokens, config.n_embd});
  branch_ = room({tokens, config.n_embd});
  qkv_ = room({tokens, config.qkv_size()});
  q_ = room({tokens, config.n_head, config.head_dim()});
  attended_ = room({tokens, config.n_head, config.head_dim()});
  hidden_ = room({tokens, config.intermediate_size});
  raw_logits_ = room({logit_rows, config.padded_vocab_size()});
  logits_ = at::empty({logit_rows, config.vocab_size}, table_.options().dtype(at::kFloat));
  extremes_ = ops::logit_extremes(logit_rows, config.vocab_size, table_.device());
  if (!config.is_2026()) return;
  mixed_.emplace(MixedStream{StreamWeights(config, weights), room({tokens, config.n_embd}), room({tokens, config.n_embd}),
                             room({tokens, config.n_embd}), at::empty_like(ids_), at::empty_like(ids_)});
}

// residual = normalised and smeared embeddings, from those in `norm_`.
void ServingPass::begin_mixed(const at::Tensor& drawn, const at::Tensor& before) {
  at::Tensor previous = part(mixed_->previous), start = part(mixed_->start), known = part(mixed_->known_ids);
  at::Tensor scrap = part(mixed_->scrap), none;
  ops::embedding_rms_norm(table_, before, drawn, scrap, previous, eps_);  // smear() does not read it where before is -1
  const StreamWeights& weights = mixed_->weights;
  ops::smear(part(norm_), previous, before, weights.smear_gate->compute, weights.smear_scale->value, start, none);
  at::clamp_min_out(known, part(ids_), 0);
  part(residual_).copy_(start);
}

// Before layer `layer`: adds the last branch to the stream, mixes it with its start, and normalises it.
void ServingPass::mix(std::int64_t layer) {
  const StreamWeights& weights = mixed_->weights;
  at::Tensor residual = part(residual_), norm = part(norm_), before, none;
  if (layer > 0 && layer - 1 == weights.backout_after) before = part(mixed_->halfway);
  const at::Tensor scale = weights.residual_scale->value.narrow(0, layer, 1);
  const at::Tensor share = weights.embedding_scale->value.narrow(0, layer, 1);
  ops::residual_mix(residual, layer > 0 ? part(branch_) : none, part(mixed_->start), scale, share, before, norm, none, eps_);
}

// Behind the last layer: adds the last branch, takes a share of an earlier state from the stream, and normalises it.
void ServingPass::back_out() {
  const StreamWeights& weights = mixed_->weights;
  const at::Tensor share = weights.backout_scale->value.neg(), one = at::ones_like(share);
  at::Tensor residual = part(residual_), norm = part(norm_), branch = part(branch_), halfway = part(mixed_->halfway), none;
  if (weights.backout_after + 1 == weights.layers) {
    halfway.copy_(residual.add_(branch));
    branch = none;
  }
  ops::residual_mix(residual, branch, halfway, one, share, none, norm, none, eps_);
}

void ServingPass::run(const at::Tensor& inputs, const at::Tensor& drawn, const at::Tensor& before,
                      const ops::DevicePagedBatch& batch, std::vector<at::Tensor>& keys, std::vector<at::Tensor>& values) {
  const std::int64_t n = inputs.numel();
  TORCH_CHECK(n <= residual_.size(0) && n == batch.tokens() && keys.size() == layers_.size() && values.size() == layers_.size(),
              "ServingPass: ", n, " tokens do not fit room for ", residual_.size(0), " or a batch of ", batch.tokens());
  tokens_ = n;
  at::Tensor residual = part(residual_), norm = part(norm_), branch = part(branch_), qkv = part(qkv_), q = part(q_);
  at::Tensor attended = part(attended_), hidden = part(hidden_), ids = part(ids_), none;
  const at::Tensor by_token = attended.view({n, -1});
  const ops::LinearFusion plain, normalised{.normalise = true, .eps = eps_}, added{.add = true};
  const ops::LinearFusion activated{.normalise = true, .eps = eps_, .relu_squared = true};
  const bool fused = fuses(n);
  // Decodes with products of a library: the factors of the norms are applied behind those products, whose kernels can then add
  // to the stream.
  const bool late = !fused && !mixed_ && batch.fuses_decodes();

  if (mixed_) {
    ops::embedding_rms_norm(table_, inputs, drawn, ids, norm, eps_);
    begin_mixed(drawn, before);
    mix(0);
  } else {
    ops::embedding_rms_norm(table_, inputs, drawn, ids, residual, eps_);
    if (!fused && !late) ops::rms_norm(residual, norm, none, eps_);
  }
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    if (!fused) {
      layer.qkv.forward(late ? residual : norm, qkv, LinearMode::kTraining);
    } else {
      mixed_ ? layer.qkv.forward(norm, qkv, plain) : layer.qkv.forward(residual, qkv, normalised);
    }
    const std::int64_t heads = q.size(1), kv_heads = keys[i].size(1);
    if (layer.plan.value_embedding) {
      ops::add_value_embedding(qkv.view({n, heads + 2 * kv_heads, q.size(2)}).narrow(1, heads + kv_heads, kv_heads), norm,
                               layer.value_gate->compute, layer.value_table->compute, part(mixed_->known_ids), none);
    }
    const ops::AttentionScope scope = attention_scope(layer.plan);
    if (batch.fuses_decodes()) {
      ops::rope_paged_decode(qkv, rope_, batch, keys[i], values[i], scope, eps_, attended, late ? residual : none);
    } else {
      ops::rope_qk_norm_store(qkv, rope_, batch, q, keys[i], values[i], eps_);
      ops::paged_attention(q, keys[i], values[i], batch, scope, attended);
    }
    if (fused) {
      layer.attention_out.forward(by_token, residual, added);
      layer.mlp_in.forward(residual, hidden, activated);
      mixed_ ? layer.mlp_out.forward(hidden, branch, plain) : layer.mlp_out.forward(hidden, residual, added);
    } else if (late) {
      layer.attention_out.add(by_token, residual);
      layer.mlp_in.forward(residual, hidden, LinearMode::kTraining);
      ops::relu_squared_normalised(residual, hidden, eps_);
      layer.mlp_out.add(hidden, residual);
    } else {
      layer.attention_out.forward(by_token, branch, LinearMode::kTraining);
      ops::add_rms_norm(residual, branch, norm, none, eps_);
      layer.mlp_in.forward(norm, hidden, LinearMode::kTraining);
      ops::relu_squared(hidden, hidden);
      layer.mlp_out.forward(hidden, branch, LinearMode::kTraining);
    }
    if (mixed_) {
      i + 1 < layers_.size() ? mix(static_cast<std::int64_t>(i) + 1) : back_out();
    } else if (!fused && !late) {
      ops::add_rms_norm(residual, branch, norm, none, eps_);
    }
  }
  if (late) ops::rms_norm(residual, norm, none, eps_);
}

at::Tensor ServingPass::logits(const at::Tensor& rows) {
  const bool fused = fuses(tokens_);
  const bool normalise = fused && !mixed_;  // by the head
  at::Tensor states = part(normalise ? residual_ : norm_);
  if (rows.defined()) states = states.index_select(0, rows);
  TORCH_CHECK(states.size(0) <= logits_.size(0), "ServingPass: no room for the logits of ", states.size(0), " tokens");
  at::Tensor raw = raw_logits_.narrow(0, 0, states.size(0)), out = logits_.narrow(0, 0, states.size(0));
  if (fused) {
    head_.forward(states, raw, ops::LinearFusion{.normalise = normalise, .eps = eps_});
  } else {
    head_.forward(states, raw, LinearMode::kTraining);
  }
  ops::softcap_logits(raw, head_options_, out, extremes_);
  return out;
}

}  // namespace nanochat
