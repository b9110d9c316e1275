#pragma once
// What a model consists of, as a function of its configuration: the plan of each layer, and one table of all tensors.
// Everything that must know the tensors of a model reads this table: the weights in memory, their initial values, the
// optimizer, parameter counts and memory estimates, checkpoints, import and export.
//
//   for_each_tensor(config, [](const TensorSpec& spec) { fmt::print("{} {}\n", spec.name(), spec.numel()); });

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace nanochat {

struct GptConfig;

// What differs from layer to layer.
struct LayerPlan {
  std::optional<std::int64_t> window = {};  // of the attention (ops::AttentionScope); none: all earlier positions
};
LayerPlan plan_layer(const GptConfig& config, std::int64_t layer);

enum class TensorRole {
  kTable,   // rows looked up by token id
  kMatrix,  // multiplies the activations of every token
};

enum class OptimizerGroup { kEmbedding, kHead, kMatrix };

// A weight as it lies in memory. Query, key and value are the rows of one, since they share a product.
enum class WeightSlot { kTokenEmbedding, kQkv, kAttentionOut, kMlpIn, kMlpOut, kHead };

// Normal with mean 0. A tensor that is zeroed is drawn all the same, since the reference does so and the draws after it
// depend on that.
struct InitialValues {
  double deviation = 1.0;
  bool zeroed = false;
};

// One tensor of the table.
struct TensorSpec {
  const char* name_pattern = "";            // of transformers; {} stands for the layer
  const char* reference_name_pattern = "";  // of the state dict of the reference
  // 0 .. n_layer - 1, or one of the two below. Gradients become final in the order of the backward pass: head, layers
  // from the last to the first, embedding (Gpt::set_gradients_final).
  std::int64_t layer = 0;
  std::vector<std::int64_t> shape;
  TensorRole role = TensorRole::kMatrix;
  InitialValues initial;
  OptimizerGroup group = OptimizerGroup::kMatrix;
  WeightSlot slot = WeightSlot::kQkv;  // the weight of that layer that holds it, from row first_row on
  std::int64_t first_row = 0;
  bool by_token = false;  // one row per token: files may leave out the rows that pad the vocabulary

  std::string name() const;            // model.layers.0.self_attn.q_proj.weight
  std::string reference_name() const;  // transformer.h.0.attn.c_q.weight
  std::int64_t numel() const;
};
inline constexpr std::int64_t kBeforeLayers = -1;  // TensorSpec::layer of the embedding
inline constexpr std::int64_t kAfterLayers = -2;   // of the head

// Calls `visit` for each tensor in the order of Gpt::parameters(), which is also the order of the reference's state dict.
// Nothing is allocated in proportion to the number of layers, so a visitor that throws may stop early at a configuration
// that is damaged.
void for_each_tensor(const GptConfig& config, const std::function<void(const TensorSpec&)>& visit);

}  // namespace nanochat
