#pragma once
// For the implementation of Gpt only: its weights as the trunk reads them, and the buffers between forward and backward.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "model/gpt.h"
#include "ops/attention.h"
#include "ops/documents.h"
#include "ops/matrix_product.h"

namespace nanochat {

// One matrix that several Parameters are slices of: query, key and value share a product.
struct MatrixWeight {
  at::Tensor value, compute, grad;
  std::optional<ops::PackedMatrix> packed;  // of pack_weights()
};

struct Gpt::Layer {
  MatrixWeight qkv, attention_out, fc1, fc2;
};

struct Gpt::Weights {
  MatrixWeight embedding, head;
  std::vector<Layer> layers;
};

struct Gpt::Activations {
  // N = B * T tokens, C = width, F = MLP size.
  struct Block {
    at::Tensor norm1, rstd1;       // (N, C), (N): input of the attention
    at::Tensor qkv;                // (N, (NH + 2 NKV) D); its value part is read in place
    at::Tensor q, k, rstd_qk;      // (B, T, NH, D), (B, T, NKV, D), (B, T, NH + NKV)
    ops::AttentionForward attention;
    at::Tensor norm2, rstd2;       // (N, C), (N): input of the MLP
    at::Tensor hidden;             // (N, F) before the activation
  };
  std::int64_t batch = 0, time = 0;
  bool training = false;           // one Block a layer, else one for all
  std::optional<ops::DocumentBounds> documents;  // none: every row is one
  ops::RopeTable document_rope;    // (N, D / 2): the table's row for each position of these
  std::vector<Block> blocks;
  at::Tensor embedded, rstd0;      // (N, C): the normalised embedding, start of the residual stream
  at::Tensor residual, branch;     // (N, C)
  at::Tensor activated;            // (N, F): ReLU squared, recomputed in backward
  at::Tensor final_norm, rstd_final;
  // Backward only.
  at::Tensor d_residual, d_norm;   // (N, C)
  at::Tensor d_hidden, d_qkv;      // (N, F), (N, (NH + 2 NKV) D)
  at::Tensor d_weight;             // scratch for bf16 weight gradients

  Block& block(std::int64_t layer) { return blocks[training ? static_cast<std::size_t>(layer) : 0]; }
  void allocate(const GptConfig& config, const at::TensorOptions& options, std::int64_t batch_size, std::int64_t tokens,
                bool train);
};

}  // namespace nanochat
