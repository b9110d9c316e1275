#pragma once
// Keys and values of earlier positions, as used by the model. Row b of a batch has start()[b] cached positions.
// attend() adds T positions for one layer and answers the queries; advance() makes them part of the past when
// all layers have them. Implementations: inference/contiguous_kv_cache.h and inference/paged_kv_cache.h.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/layout.h"
#include "ops/attention.h"

namespace nanochat {

// Which keys a query of such a layer sees in a cache.
inline ops::AttentionScope attention_scope(const LayerPlan& plan) { return {.window = plan.window, .scale = plan.score_scale}; }

class KvCache {
 public:
  virtual ~KvCache() = default;
  // int64 (B) on the CPU: number of cached positions per row, which is the position of the row's next token.
  virtual const at::Tensor& start() const = 0;
  // Maximum number of positions in a row.
  virtual std::int64_t capacity() const = 0;
  // ids: int32 (B, T), the tokens of the positions start() + 0 .. T-1. Returns those before each, int32 (B, T) on the same
  // device, -1 where a row begins. Called once a pass, before attend(), for a model that smears embeddings (ops/smear.h).
  virtual at::Tensor tokens_before(const at::Tensor& ids) = 0;
  // q: (B, T, NH, D); k, v: (B, T, NKV, D), of the positions start() + 0 .. T-1. Stores k and v for `layer` and returns
  // causal attention over what is cached for it and in its window (plan_layer), (B, T, NH, D). TORCH_CHECK error beyond
  // capacity.
  virtual at::Tensor attend(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) = 0;
  // Whether results must be batch-invariant: a row comes out the same, bit for bit, whatever the other rows of the batch
  // are (ops/linear.h).
  virtual bool batch_invariant() const { return false; }
  // After the last layer: start() += tokens.
  virtual void advance(std::int64_t tokens) = 0;
};

}  // namespace nanochat
