#pragma once
// The tensors of a model as a function of its configuration: the plan of each layer, and one table
// of all tensors. All code that needs a model's tensors reads this table: weights in memory,
// initial values, optimizer, parameter counts, memory estimates, checkpoints, import and export.
//
//   for_each_tensor(config, [](const TensorSpec& spec) { fmt::print("{} {}\n", spec.name(), spec.numel()); });

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace nanochat {

struct GptConfig;

// What differs between layers.
struct LayerPlan {
  std::optional<std::int64_t> window = {};  // of the attention (ops::AttentionScope); none: all earlier positions
};
LayerPlan plan_layer(const GptConfig& config, std::int64_t layer);

enum class TensorRole {
  kTable,   // rows looked up by token id
  kMatrix,  // multiplied with the activations of every token
};

enum class OptimizerGroup { kEmbedding, kHead, kMatrix };

// A weight in memory. Query, key and value are rows of one weight, because they share a product.
enum class WeightSlot { kTokenEmbedding, kQkv, kAttentionOut, kMlpIn, kMlpOut, kHead };

// Normal with mean 0. A tensor of zeros is drawn too, as
// in the reference, because later draws depend on it.
struct InitialValues {
  double deviation = 1.0;
  bool zeroed = false;
};

// One tensor of the table.
struct TensorSpec {
  const char* name_pattern = "";            // name in transformers; {} is the layer
  const char* reference_name_pattern = "";  // name in the reference's state dict
  // 0 .. n_layer - 1, or one of the two below. Gradients become final in the order of the backward pass: head, layers
  // from the last to the first, embedding (Gpt::set_gradients_final).
  std::int64_t layer = 0;
  std::vector<std::int64_t> shape;
  TensorRole role = TensorRole::kMatrix;
  InitialValues initial;
  OptimizerGroup group = OptimizerGroup::kMatrix;
  WeightSlot slot = WeightSlot::kQkv;  // the weight of that layer that holds it, from row first_row
  std::int64_t first_row = 0;
  bool by_token = false;  // one row per token: files may omit the rows that pad the vocabulary

  std::string name() const;            // model.layers.0.self_attn.q_proj.weight
  std::string reference_name() const;  // transformer.h.0.attn.c_q.weight
  std::int64_t numel() const;
};
inline constexpr std::int64_t kBeforeLayers = -1;  // TensorSpec::layer of the embedding
inline constexpr std::int64_t kAfterLayers = -2;   // of the head

// Calls `visit` for each tensor in the order of Gpt::parameters(), which is also that
// of the reference's state dict. Allocates nothing in proportion to the number of
// layers; a visitor that throws can therefore stop early at a damaged configuration.
void for_each_tensor(const GptConfig& config, const std::function<void(const TensorSpec&)>& visit);

}  // namespace nanochat
