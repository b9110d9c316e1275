#include "model/serving_pass.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include "model/gpt.h"
#include "ops/embedding.h"
#include "ops/relu_squared.h"
#include "ops/rms_norm.h"

namespace nanochat {
namespace {

// Rows that our products take together with what stands around them. In bfloat16 cuBLAS is faster with more. In float32 one
// kernel serves all, so that a row is always computed alike.
constexpr std::int64_t kMostFusedRows = 32;

}  // namespace

bool ServingPass::supports(const GptConfig& config) { return !config.is_2026(); }

bool ServingPass::fuses(std::int64_t rows) const { return batch_invariant_ || rows <= kMostFusedRows; }

ServingPass::ServingPass(Gpt& model, std::int64_t tokens, std::int64_t logit_rows, bool batch_invariant)
    : head_(model.weights().at(kAfterLayers, WeightSlot::kHead)),
      table_(model.weights().at(kBeforeLayers, WeightSlot::kTokenEmbedding).compute), eps_(model.config().rms_norm_eps),
      batch_invariant_(batch_invariant || model.dtype() == at::kFloat) {
  const GptConfig& config = model.config();
  TORCH_CHECK(supports(config), "ServingPass: no kernels for ", architecture_name(config.architecture));
  Weights& weights = model.weights();
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
    layers_.push_back({plan_layer(config, layer), Linear(weights.at(layer, WeightSlot::kQkv)),
                       Linear(weights.at(layer, WeightSlot::kAttentionOut)), Linear(weights.at(layer, WeightSlot::kMlpIn)),
                       Linear(weights.at(layer, WeightSlot::kMlpOut))});
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
}

void ServingPass::run(const at::Tensor& inputs, const at::Tensor& drawn, const ops::DevicePagedBatch& batch,
                      std::vector<at::Tensor>& keys, std::vector<at::Tensor>& values) {
  const std::int64_t n = inputs.numel();
  TORCH_CHECK(n <= residual_.size(0) && n == batch.tokens() && keys.size() == layers_.size() && values.size() == layers_.size(),
              "ServingPass: ", n, " tokens do not fit room for ", residual_.size(0), " or a batch of ", batch.tokens());
  tokens_ = n;
  const auto first = [&](const at::Tensor& room) { return room.narrow(0, 0, n); };
  at::Tensor residual = first(residual_), norm = first(norm_), branch = first(branch_), qkv = first(qkv_), q = first(q_);
  at::Tensor attended = first(attended_), hidden = first(hidden_), ids = first(ids_), none;
  const at::Tensor by_token = attended.view({n, -1});
  const ops::LinearFusion normalised{.normalise = true, .eps = eps_}, added{.add = true};
  const ops::LinearFusion activated{.normalise = true, .eps = eps_, .relu_squared = true};
  const bool fused = fuses(n);

  ops::embedding_rms_norm(table_, inputs, drawn, ids, residual, eps_);
  if (!fused) ops::rms_norm(residual, norm, none, eps_);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    fused ? layer.qkv.forward(residual, qkv, normalised) : layer.qkv.forward(norm, qkv, LinearMode::kTraining);
    const std::int64_t window = layer.plan.window.value_or(-1);
    if (batch.fuses_decodes()) {
      ops::rope_paged_decode(qkv, rope_, batch, keys[i], values[i], window, eps_, attended);
    } else {
      ops::rope_qk_norm_store(qkv, rope_, batch, q, keys[i], values[i], eps_);
      ops::paged_attention(q, keys[i], values[i], batch, window, attended);
    }
    if (fused) {
      layer.attention_out.forward(by_token, residual, added);
      layer.mlp_in.forward(residual, hidden, activated);
      layer.mlp_out.forward(hidden, residual, added);
      continue;
    }
    layer.attention_out.forward(by_token, branch, LinearMode::kTraining);
    ops::add_rms_norm(residual, branch, norm, none, eps_);
    layer.mlp_in.forward(norm, hidden, LinearMode::kTraining);
    ops::relu_squared(hidden, hidden);
    layer.mlp_out.forward(hidden, branch, LinearMode::kTraining);
    ops::add_rms_norm(residual, branch, norm, none, eps_);
  }
}

at::Tensor ServingPass::logits(const at::Tensor& rows) {
  const bool fused = fuses(tokens_);
  at::Tensor states = (fused ? residual_ : norm_).narrow(0, 0, tokens_);
  if (rows.defined()) states = states.index_select(0, rows);
  TORCH_CHECK(states.size(0) <= logits_.size(0), "ServingPass: no room for the logits of ", states.size(0), " tokens");
  at::Tensor raw = raw_logits_.narrow(0, 0, states.size(0)), out = logits_.narrow(0, 0, states.size(0));
  if (fused) {
    head_.forward(states, raw, ops::LinearFusion{.normalise = true, .eps = eps_});
  } else {
    head_.forward(states, raw, LinearMode::kBatchInvariant);  // few rows of many
  }
  ops::softcap_logits(raw, head_options_, out);
  return out;
}

}  // namespace nanochat
