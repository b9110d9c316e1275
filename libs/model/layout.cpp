#include "model/layout.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "model/config.h"

namespace nanochat {
namespace {

// Spectral condition of Yang et al. 2023 (arXiv 2310.17813).
InitialValues by_fan(std::int64_t rows, std::int64_t columns, bool zeroed) {
  const auto fan_out = static_cast<double>(rows), fan_in = static_cast<double>(columns);
  return {1.0 / std::sqrt(fan_in) * std::min(1.0, std::sqrt(fan_out / fan_in)), zeroed};
}

TensorSpec table(const GptConfig& config) {
  TensorSpec spec;
  spec.name_pattern = "model.embed_tokens.weight";
  spec.reference_name_pattern = "transformer.wte.weight";
  spec.layer = kBeforeLayers;
  spec.shape = {config.padded_vocab_size(), config.n_embd};
  spec.role = TensorRole::kTable;
  spec.group = OptimizerGroup::kEmbedding;
  spec.slot = WeightSlot::kTokenEmbedding;
  spec.by_token = true;
  return spec;
}

TensorSpec head(const GptConfig& config) {
  TensorSpec spec;
  spec.name_pattern = spec.reference_name_pattern = "lm_head.weight";
  spec.layer = kAfterLayers;
  spec.shape = {config.padded_vocab_size(), config.n_embd};
  spec.initial = by_fan(config.padded_vocab_size(), config.n_embd, /*zeroed=*/true);
  spec.group = OptimizerGroup::kHead;
  spec.slot = WeightSlot::kHead;
  spec.by_token = true;
  return spec;
}

// A matrix of the blocks (rows, columns).
TensorSpec matrix(const char* name, const char* reference_name, WeightSlot slot, std::int64_t first_row, std::int64_t rows,
                  std::int64_t columns, bool zeroed = false) {
  TensorSpec spec;
  spec.name_pattern = name;
  spec.reference_name_pattern = reference_name;
  spec.shape = {rows, columns};
  spec.initial = by_fan(rows, columns, zeroed);
  spec.slot = slot;
  spec.first_row = first_row;
  return spec;
}

std::vector<TensorSpec> block(const GptConfig& config) {
  const std::int64_t width = config.n_embd, hidden = config.intermediate_size;
  const std::int64_t q = config.n_head * config.head_dim(), kv = config.n_kv_head * config.head_dim();
  constexpr bool kZeroed = true;  // the projections back into the residual stream
  return {
      matrix("model.layers.{}.self_attn.q_proj.weight", "transformer.h.{}.attn.c_q.weight", WeightSlot::kQkv, 0, q, width),
      matrix("model.layers.{}.self_attn.k_proj.weight", "transformer.h.{}.attn.c_k.weight", WeightSlot::kQkv, q, kv, width),
      matrix("model.layers.{}.self_attn.v_proj.weight", "transformer.h.{}.attn.c_v.weight", WeightSlot::kQkv, q + kv, kv,
             width),
      matrix("model.layers.{}.self_attn.o_proj.weight", "transformer.h.{}.attn.c_proj.weight", WeightSlot::kAttentionOut, 0,
             width, q, kZeroed),
      matrix("model.layers.{}.mlp.fc1.weight", "transformer.h.{}.mlp.c_fc.weight", WeightSlot::kMlpIn, 0, hidden, width),
      matrix("model.layers.{}.mlp.fc2.weight", "transformer.h.{}.mlp.c_proj.weight", WeightSlot::kMlpOut, 0, width, hidden,
             kZeroed),
  };
}

}  // namespace

LayerPlan plan_layer(const GptConfig& /*config*/, std::int64_t /*layer*/) {
  return {};  // every layer sees the whole document
}

void for_each_tensor(const GptConfig& config, const std::function<void(const TensorSpec&)>& visit) {
  visit(table(config));
  std::vector<TensorSpec> tensors = block(config);
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
    for (TensorSpec& tensor : tensors) {
      tensor.layer = layer;
      visit(tensor);
    }
  }
  visit(head(config));
}

std::string TensorSpec::name() const { return fmt::format(fmt::runtime(name_pattern), layer); }
std::string TensorSpec::reference_name() const { return fmt::format(fmt::runtime(reference_name_pattern), layer); }
std::int64_t TensorSpec::numel() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace nanochat
