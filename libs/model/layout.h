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
  double score_scale = 1.0;                 // of the attention (ops::AttentionScope)
  bool value_embedding = false;             // rows of a table of this layer are added to the values, scaled by a gate
};
LayerPlan plan_layer(const GptConfig& config, std::int64_t layer);

// Of nanochat-2026-07.
inline constexpr std::int64_t kValueGateChannels = 12;  // the gate of value embeddings reads the first channels of its layer's input
inline constexpr std::int64_t kSmearChannels = 24;      // the gate of smear reads the first channels of the embedding
// The layer whose output, scaled, is taken from the stream before the head (backout).
std::int64_t backout_layer(const GptConfig& config);

enum class TensorRole {
  kTable,    // rows looked up by token id
  kMatrix,   // multiplies the activations of every token
  kGate,     // multiplies the first channels of every token
  kScalars,  // each scales the whole stream, and is float32 in every model
};

enum class OptimizerGroup { kEmbedding, kHead, kMatrix, kValueEmbedding, kResidualScale, kEmbeddingScale, kSmear };

// A weight as it lies in memory. Query, key and value are the rows of one, since they share a product.
enum class WeightSlot {
  kTokenEmbedding, kQkv, kAttentionOut, kMlpIn, kMlpOut, kHead,
  kResidualScale, kEmbeddingScale, kSmearScale, kBackoutScale, kSmearGate, kValueGate, kValueEmbedding,
};

// How a tensor begins.
struct InitialValues {
  enum class Kind {
    kNormal,   // with mean 0
    kUniform,  // between first and last
    kEven,     // nothing is drawn: evenly spaced from first to last
  };
  Kind kind = Kind::kNormal;
  double deviation = 1.0;          // kNormal
  double first = 0.0, last = 0.0;  // kUniform and kEven
  // Set to zero after it was drawn, since nanochat-2025-12 does so and the draws after it depend on that.
  bool zeroed = false;
  int turn = 0;  // tensors of a lower turn are drawn first, those of one turn in the order of the table
};

// One tensor of the table.
struct TensorSpec {
  const char* name_pattern = "";            // of transformers; {} stands for the layer
  const char* reference_name_pattern = "";  // of the state dict of the reference
  // 0 .. n_layer - 1, or one of the two below: when its gradient becomes final. That is in the order of the backward pass:
  // head, layers from the last to the first, embedding (Gpt::set_gradients_final).
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
inline constexpr std::int64_t kBeforeLayers = -1;  // TensorSpec::layer of the embedding, and of what all layers share
inline constexpr std::int64_t kAfterLayers = -2;   // of the head

// Calls `visit` for each tensor in the order of Gpt::parameters(), which is also the order of the reference's state dict.
// Nothing is allocated in proportion to the number of layers, so a visitor that throws may stop early at a configuration
// that is damaged.
void for_each_tensor(const GptConfig& config, const std::function<void(const TensorSpec&)>& visit);

}  // namespace nanochat
