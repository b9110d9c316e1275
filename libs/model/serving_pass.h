#pragma once
// A second implementation of the network, for serving on a GPU. Differences from Gpt::forward_states(): for few tokens,
// products are fused with the norms, activations and sums around them; a pass allocates nothing, so it can be recorded as a
// CUDA graph (ops/device_graph.h); keys and values go to a paged cache; and inputs may be tokens that the host has not read
// yet.
//
//   ServingPass pass(model, /*tokens=*/32, /*logit_rows=*/32);
//   pass.run(inputs, drawn, before, batch, keys, values);
//   at::Tensor logits = pass.logits();
//
// In float32, results are batch-invariant if the batch is (ops::PagedOptions). In bfloat16, passes of more than 16 tokens use
// cuBLAS, whose results depend on the batch, unless `batch_invariant` is set.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "model/layout.h"
#include "model/linear.h"
#include "model/residual_stream.h"
#include "ops/cross_entropy.h"
#include "ops/paged_attention.h"
#include "ops/rope.h"

namespace nanochat {

class Gpt;
struct GptConfig;

// Not thread-safe. The model must outlive it.
class ServingPass {
 public:
  // Room for passes of up to `tokens`, and for the logits of `logit_rows` of them. batch_invariant: in bfloat16, too.
  ServingPass(Gpt& model, std::int64_t tokens, std::int64_t logit_rows, bool batch_invariant = false);

  // inputs: int32 (N), ids or references to elements of `drawn` (ops::embedding_rms_norm). before: int32 (N), the token before
  // each, -1 where there is none; models that do not smear embeddings ignore it. keys, values: of each layer, (blocks, NKV,
  // block_size, D). The batch is made for them and for N tokens.
  void run(const at::Tensor& inputs, const at::Tensor& drawn, const at::Tensor& before, const ops::DevicePagedBatch& batch,
           std::vector<at::Tensor>& keys, std::vector<at::Tensor>& values);
  // Soft-capped logits (M, vocab_size) float32 of the last pass, of all its tokens or of `rows` (int64 (M), on the device).
  // The next call overwrites them.
  at::Tensor logits(const at::Tensor& rows = {});
  // Extremes of those (ops::logit_extremes), and room for more.
  const at::Tensor& logit_extremes() const { return extremes_; }
  // int32 (tokens): the resolved ids of the inputs of the last pass; the rest is undefined.
  const at::Tensor& ids() const { return ids_; }

 private:
  struct Layer {
    LayerPlan plan;
    Linear qkv, attention_out, mlp_in, mlp_out;
    Weight *value_gate, *value_table;  // null without value embeddings
  };
  // Of nanochat-2026-07: the residual stream as in residual_stream.h, without what a backward pass needs.
  struct MixedStream {
    StreamWeights weights;
    // (tokens, C): embeddings of the tokens before; the stream's start; the stream after layer backout_layer().
    at::Tensor previous, start, halfway;
    at::Tensor known_ids, scrap;  // int32 (tokens): ids, 0 for those that are none; nobody reads the other
  };

  bool fuses(std::int64_t rows) const;
  void begin_mixed(const at::Tensor& drawn, const at::Tensor& before);
  void mix(std::int64_t layer);
  void back_out();
  at::Tensor part(const at::Tensor& room) const { return room.narrow(0, 0, tokens_); }

  Linear head_;
  at::Tensor table_;  // token embedding
  std::vector<Layer> layers_;
  std::optional<MixedStream> mixed_;
  ops::RopeTable rope_;
  ops::HeadOptions head_options_;
  double eps_;
  bool batch_invariant_;
  at::Tensor ids_;
  at::Tensor residual_, norm_, branch_, qkv_, q_, attended_, hidden_;  // (tokens, ...)
  at::Tensor raw_logits_, logits_;  // (logit_rows, padded vocabulary), (.., vocab_size)
  at::Tensor extremes_;  // of logits_
  std::int64_t tokens_ = 0;  // of the last pass
};

}  // namespace nanochat
