#pragma once
// Internal to model: attention of one layer, from a reading of the residual stream to the branch that is added to
// it. RoPE, QK-norm, grouped queries; in nanochat-2026-07 also sliding windows, and value embeddings in every second layer.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/config.h"
#include "model/pass.h"
#include "model/residual_stream.h"

namespace nanochat {

class AttentionBlock {
 public:
  // Kept by forward() for backward(). N = B * T tokens.
  struct Kept {
    Reading input;
    at::Tensor qkv;            // (N, (NH + 2 NKV) D); the value heads are read in place
    at::Tensor q, k, rstd_qk;  // (B, T, NH, D), (B, T, NKV, D), (B, T, NH + NKV)
    ops::AttentionForward attention;
    at::Tensor value_gate;     // float32 (N, NKV), of layers with value embeddings
    Fp8Kept of_qkv, of_out;
  };
  // Buffers of backward(), shared by all layers.
  struct Scratch {
    at::Tensor d_qkv;  // as qkv
  };

  AttentionBlock(const GptConfig& config, std::int64_t layer, Weights& weights);

  bool has_value_embedding() const { return plan_.value_embedding; }

  Kept make_kept(std::int64_t batch, std::int64_t time, const at::TensorOptions& options, bool train) const;
  Scratch make_scratch(std::int64_t tokens, const at::TensorOptions& options) const;

  // branch (N, C) = attention(kept.input).
  void forward(const Pass& pass, Kept& kept, at::Tensor& branch) const;
  // d_input (N, C) from the gradient of the branch; accumulates the weights' gradients. Releases what attention kept.
  void backward(const Pass& pass, Kept& kept, const at::Tensor& d_branch, Scratch& scratch, at::Tensor& d_input) const;

 private:
  // The value heads in the fused projection, (B, T, NKV, D), without a copy.
  at::Tensor values(const Pass& pass, const at::Tensor& qkv) const;
  at::Tensor by_token(const Pass& pass, const at::Tensor& heads) const;  // (B, T, NH, D) -> (N, NH D)
  at::Tensor flat_values(const at::Tensor& qkv) const;                   // the same values, (N, NKV, D)

  std::int64_t layer_, n_head_, n_kv_head_, head_dim_;
  double eps_;
  LayerPlan plan_;
  Linear qkv_, out_;
  Weight *value_gate_ = nullptr, *value_table_ = nullptr;  // of layers with value embeddings
};

}  // namespace nanochat
