#pragma once
// A second implementation of the network, for serving on a GPU. Differences from Gpt::forward_states(): for few tokens,
// products are fused with the norms, activations and sums around them; a pass allocates nothing, so it can be recorded as a
// CUDA graph (ops/device_graph.h); keys and values go to a paged cache; and inputs may be tokens that the host has not read
// yet.
//
//   ServingPass pass(model, /*tokens=*/32, /*logit_rows=*/32);
//   pass.run(inputs, drawn, batch, keys, values);
//   at::Tensor logits = pass.logits();
//
// In float32, results are batch-invariant if the batch is (ops::PagedOptions). In bfloat16, passes of more than 32 tokens use
// cuBLAS, whose results depend on the batch, unless `batch_invariant` is set.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/layout.h"
#include "model/linear.h"
#include "ops/cross_entropy.h"
#include "ops/paged_attention.h"
#include "ops/rope.h"

namespace nanochat {

class Gpt;
struct GptConfig;

// Not thread-safe. The model must outlive it.
class ServingPass {
 public:
  // False for nanochat-2026-07: its smear, value embeddings and scales of the stream have no kernels for GPUs yet. Such
  // models are served through Gpt::forward_states().
  static bool supports(const GptConfig& config);

  // Throws a TORCH_CHECK error for a model that is not supported. Room for passes of up to `tokens`, and for the logits of
  // `logit_rows` of them. batch_invariant: in bfloat16, too.
  ServingPass(Gpt& model, std::int64_t tokens, std::int64_t logit_rows, bool batch_invariant = false);

  // inputs: int32 (N), ids or references to elements of `drawn` (ops::embedding_rms_norm). keys, values: of each layer,
  // (blocks, NKV, block_size, D). The batch is made for them and for N tokens.
  void run(const at::Tensor& inputs, const at::Tensor& drawn, const ops::DevicePagedBatch& batch, std::vector<at::Tensor>& keys,
           std::vector<at::Tensor>& values);
  // Soft-capped logits (M, vocab_size) float32 of the last pass, of all its tokens or of `rows` (int64 (M), on the device).
  // The next call overwrites them.
  at::Tensor logits(const at::Tensor& rows = {});
  // int32 (tokens): the resolved ids of the inputs of the last pass; the rest is undefined.
  const at::Tensor& ids() const { return ids_; }

 private:
  struct Layer {
    LayerPlan plan;
    Linear qkv, attention_out, mlp_in, mlp_out;
  };

  bool fuses(std::int64_t rows) const;

  Linear head_;
  at::Tensor table_;  // token embedding
  std::vector<Layer> layers_;
  ops::RopeTable rope_;
  ops::HeadOptions head_options_;
  double eps_;
  bool batch_invariant_;
  at::Tensor ids_;
  at::Tensor residual_, norm_, branch_, qkv_, q_, attended_, hidden_;  // (tokens, ...)
  at::Tensor raw_logits_, logits_;  // (logit_rows, padded vocabulary), (.., vocab_size)
  std::int64_t tokens_ = 0;  // of the last pass
};

}  // namespace nanochat
