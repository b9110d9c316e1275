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
  double score_scale = 1.0;                 // of the attention (ops::AttentionScope)
  bool value_embedding = false;             // rows of a table of this layer are added to the values, scaled by a gate
};
LayerPlan plan_layer(const GptConfig& config, std::int64_t layer);

// Of nanochat-2026-07.
inline constexpr std::int64_t kValueGateChannels =
    12;  // the gate of value embeddings reads the first channels of its layer's input
inline constexpr std::int64_t kSmearChannels = 24;      // the gate of smear reads the first channels of the embedding
// The layer whose output, scaled, is taken from the stream before the head (backout).
std::int64_t backout_layer(const GptConfig& config);

enum class TensorRole {
  kTable,    // rows looked up by token id
  kMatrix,   // multiplied with the activations of every token
  kGate,     // multiplied with the first channels of every token
  kScalars,  // each one scales the whole stream; float32 in every model
};

enum class OptimizerGroup { kEmbedding, kHead, kMatrix, kValueEmbedding, kResidualScale, kEmbeddingScale, kSmear };

// A weight in memory. Query, key and value are rows of one weight, because they share a product.
enum class WeightSlot {
  kTokenEmbedding,
  kQkv,
  kAttentionOut,
  kMlpIn,
  kMlpOut,
  kHead,
  kResidualScale,
  kEmbeddingScale,
  kSmearScale,
  kBackoutScale,
  kSmearGate,
  kValueGate,
  kValueEmbedding,
};

// Initial values of a tensor.
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
// Whether a model for training computes with this tensor in float32, whatever its compute type: scalars, and tables of value
// embeddings, of which a step changes all rows and a batch reads few, so that a copy would cost more than it saves.
bool computes_in_float32(const TensorSpec& tensor);
// Whether processes that divide the weights of a model among them (Residency::kShared) divide this tensor. Scalars and gates have
// few numbers, so each process has all of them.
bool is_divided(const TensorSpec& tensor);
inline constexpr std::int64_t kBeforeLayers = -1;  // TensorSpec::layer of the embedding, and of what all layers share
inline constexpr std::int64_t kAfterLayers = -2;  // of the head

// Calls `visit` for each tensor in the order of Gpt::parameters(), which is also that
// of the reference's state dict. Allocates nothing in proportion to the number of
// layers; a visitor that throws can therefore stop early at a damaged configuration.
void for_each_tensor(const GptConfig& config, const std::function<void(const TensorSpec&)>& visit);

}  // namespace nanochat
