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
  return {.deviation = 1.0 / std::sqrt(fan_in) * std::min(1.0, std::sqrt(fan_out / fan_in)), .zeroed = zeroed};
}

// Of nanochat-2026-07, in the order in which it draws.
enum Turn { kTableTurn, kHeadTurn, kMatrixTurn, kSmearTurn, kValueTableTurn, kValueGateTurn };

InitialValues uniform(double first, double last, Turn turn) {
  return {.kind = InitialValues::Kind::kUniform, .first = first, .last = last, .turn = turn};
}
InitialValues even(double first, double last) { return {.kind = InitialValues::Kind::kEven, .first = first, .last = last}; }
// sqrt(3 / width): a uniform distribution of deviation 1 / sqrt(width).
double bound(const GptConfig& config) { return std::sqrt(3.0) * std::pow(static_cast<double>(config.n_embd), -0.5); }
constexpr double kLargestGate = 0.02;

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
  if (config.is_2026()) spec.initial = {.deviation = 0.8, .turn = kTableTurn};
  return spec;
}

TensorSpec head(const GptConfig& config) {
  TensorSpec spec;
  spec.name_pattern = spec.reference_name_pattern = "lm_head.weight";
  spec.layer = kAfterLayers;
  spec.shape = {config.padded_vocab_size(), config.n_embd};
  spec.initial = config.is_2026() ? InitialValues{.deviation = 0.001, .turn = kHeadTurn}
                                  : by_fan(config.padded_vocab_size(), config.n_embd, /*zeroed=*/true);
  spec.group = OptimizerGroup::kHead;
  spec.slot = WeightSlot::kHead;
  spec.by_token = true;
  return spec;
}

// A matrix of the blocks (rows, columns). `share`: of the bound of nanochat-2026-07's uniform distribution; 0: zero.
TensorSpec matrix(const GptConfig& config, const char* name, const char* reference_name, WeightSlot slot,
                  std::int64_t first_row, std::int64_t rows, std::int64_t columns, double share) {
  TensorSpec spec;
  spec.name_pattern = name;
  spec.reference_name_pattern = reference_name;
  spec.shape = {rows, columns};
  const double limit = share * bound(config);
  spec.initial = !config.is_2026() ? by_fan(rows, columns, /*zeroed=*/share == 0.0)
                 : share == 0.0    ? even(0.0, 0.0)
                                   : uniform(-limit, limit, kMatrixTurn);
  spec.slot = slot;
  spec.first_row = first_row;
  return spec;
}

TensorSpec value_gate(const GptConfig& config) {
  TensorSpec spec;
  spec.name_pattern = "model.layers.{}.self_attn.ve_gate.weight";
  spec.reference_name_pattern = "transformer.h.{}.attn.ve_gate.weight";
  spec.shape = {config.n_kv_head, kValueGateChannels};
  spec.role = TensorRole::kGate;
  spec.initial = uniform(0.0, kLargestGate, kValueGateTurn);
  spec.slot = WeightSlot::kValueGate;
  return spec;
}

TensorSpec value_table(const GptConfig& config) {
  TensorSpec spec;
  spec.name_pattern = "model.value_embeds.{}.weight";
  spec.reference_name_pattern = "value_embeds.{}.weight";
  spec.shape = {config.padded_vocab_size(), config.n_kv_head * config.head_dim()};
  spec.role = TensorRole::kTable;
  spec.initial = uniform(-bound(config), bound(config), kValueTableTurn);
  spec.group = OptimizerGroup::kValueEmbedding;
  spec.slot = WeightSlot::kValueEmbedding;
  spec.by_token = true;
  return spec;
}

TensorSpec scalars(const char* name, const char* reference_name, std::int64_t layer, std::int64_t count, InitialValues initial,
                   OptimizerGroup group, WeightSlot slot) {
  TensorSpec spec;
  spec.name_pattern = name;
  spec.reference_name_pattern = reference_name;
  spec.layer = layer;
  spec.shape = {count};
  spec.role = TensorRole::kScalars;
  spec.initial = initial;
  spec.group = group;
  spec.slot = slot;
  return spec;
}

std::vector<TensorSpec> stream_scalars(const GptConfig& config) {
  return {
      scalars("model.resid_lambdas", "resid_lambdas", kBeforeLayers, config.n_layer, even(1.15, 1.05),
              OptimizerGroup::kResidualScale, WeightSlot::kResidualScale),
      scalars("model.x0_lambdas", "x0_lambdas", kBeforeLayers, config.n_layer, even(0.20, 0.05),
              OptimizerGroup::kEmbeddingScale, WeightSlot::kEmbeddingScale),
      scalars("model.smear_lambda", "smear_lambda", kBeforeLayers, 1, even(0.0, 0.0), OptimizerGroup::kSmear,
              WeightSlot::kSmearScale),
      scalars("model.backout_lambda", "backout_lambda", kAfterLayers, 1, even(0.2, 0.2), OptimizerGroup::kSmear,
              WeightSlot::kBackoutScale),
  };
}

TensorSpec smear_gate() {
  TensorSpec spec;
  spec.name_pattern = "model.smear_gate.weight";
  spec.reference_name_pattern = "smear_gate.weight";
  spec.layer = kBeforeLayers;
  spec.shape = {1, kSmearChannels};
  spec.role = TensorRole::kGate;
  spec.initial = uniform(0.0, kLargestGate, kSmearTurn);
  spec.group = OptimizerGroup::kSmear;
  spec.slot = WeightSlot::kSmearGate;
  return spec;
}

// Of one layer; a value gate is among them where any layer has one.
std::vector<TensorSpec> block(const GptConfig& config) {
  const std::int64_t width = config.n_embd, hidden = config.intermediate_size;
  const std::int64_t q = config.n_head * config.head_dim(), kv = config.n_kv_head * config.head_dim();
  constexpr double kWhole = 1.0, kZero = 0.0;  // zero: the projections back into the residual stream
  const auto make = [&](const char* name, const char* reference, WeightSlot slot, std::int64_t first_row, std::int64_t rows,
                        std::int64_t columns,
                        double share) { return matrix(config, name, reference, slot, first_row, rows, columns, share); };
  std::vector<TensorSpec> tensors = {
      make("model.layers.{}.self_attn.q_proj.weight", "transformer.h.{}.attn.c_q.weight", WeightSlot::kQkv, 0, q, width,
           kWhole),
      make("model.layers.{}.self_attn.k_proj.weight", "transformer.h.{}.attn.c_k.weight", WeightSlot::kQkv, q, kv, width,
           kWhole),
      make("model.layers.{}.self_attn.v_proj.weight", "transformer.h.{}.attn.c_v.weight", WeightSlot::kQkv, q + kv, kv, width,
           kWhole),
      make("model.layers.{}.self_attn.o_proj.weight", "transformer.h.{}.attn.c_proj.weight", WeightSlot::kAttentionOut, 0,
           width, q, kZero),
      make("model.layers.{}.mlp.fc1.weight", "transformer.h.{}.mlp.c_fc.weight", WeightSlot::kMlpIn, 0, hidden, width, 0.4),
      make("model.layers.{}.mlp.fc2.weight", "transformer.h.{}.mlp.c_proj.weight", WeightSlot::kMlpOut, 0, width, hidden,
           kZero),
  };
  if (config.is_2026()) tensors.insert(tensors.begin() + 4, value_gate(config));
  return tensors;
}

// Short windows are a quarter of the context, rounded up to tiles of 128 keys.
std::int64_t short_window(const GptConfig& config) {
  constexpr std::int64_t kTile = 128;
  const std::int64_t quarter = (config.sequence_len + 3) / 4;
  return (quarter + kTile - 1) / kTile * kTile;
}

}  // namespace

LayerPlan plan_layer(const GptConfig& config, std::int64_t layer) {
  if (!config.is_2026()) return {};  // every layer sees the whole document
  const char letter = config.window_pattern[static_cast<std::size_t>(layer) % config.window_pattern.size()];
  const bool is_short = layer + 1 < config.n_layer && (letter == 'S' || letter == 's');
  return {.window = is_short ? short_window(config) : config.sequence_len,
          .score_scale = config.qk_scale * config.qk_scale,
          .value_embedding = layer % 2 == (config.n_layer - 1) % 2};
}

std::int64_t backout_layer(const GptConfig& config) { return config.n_layer / 2; }

void for_each_tensor(const GptConfig& config, const std::function<void(const TensorSpec&)>& visit) {
  if (config.is_2026()) {
    for (const TensorSpec& tensor : stream_scalars(config)) visit(tensor);
  }
  visit(table(config));
  std::vector<TensorSpec> tensors = block(config);
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
    for (TensorSpec& tensor : tensors) {
      if (tensor.slot == WeightSlot::kValueGate && !plan_layer(config, layer).value_embedding) continue;
      tensor.layer = layer;
      visit(tensor);
    }
  }
  visit(head(config));
  if (!config.is_2026()) return;
  visit(smear_gate());
  TensorSpec values = value_table(config);
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
    if (!plan_layer(config, layer).value_embedding) continue;
    values.layer = layer;
    visit(values);
  }
}

bool computes_in_float32(const TensorSpec& tensor) {
  return tensor.role == TensorRole::kScalars || tensor.slot == WeightSlot::kValueEmbedding;
}

bool is_divided(const TensorSpec& tensor) { return tensor.role == TensorRole::kTable || tensor.role == TensorRole::kMatrix; }

std::string TensorSpec::name() const { return fmt::format(fmt::runtime(name_pattern), layer); }
std::string TensorSpec::reference_name() const { return fmt::format(fmt::runtime(reference_name_pattern), layer); }
std::int64_t TensorSpec::numel() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace nanochat
