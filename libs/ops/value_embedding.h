#pragma once
// Value embeddings of nanochat-2026-07: a row of a table, looked up by the token's id, is added to the values of a layer's
// attention; a gate for each key/value head, on the first channels of the layer's input, scales it by 0 to 3.
// Source: CausalSelfAttention.forward of the reference at 92d63d4; modded-nanogpt.

#include <ATen/core/Tensor.h>

#include "ops/embedding.h"

namespace nanochat::ops {

// v += g row, g = 3 sigmoid(h[0, G) . gate) for each head. v: (N, NKV, D), the last two dimensions dense; h: (N, C); gate:
// (NKV, G) of their type. table: (V, NKV * D), of their type or float32. ids: int32 (N). g: float32 (N, NKV), or undefined.
void add_value_embedding(at::Tensor v, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                         const at::Tensor& ids, at::Tensor& g);

// dv: (N, NKV, D), the last two dimensions dense. Adds to dh (N, C), to d_gate (NKV, G; float32) and, if it is defined, to
// d_table (V, NKV * D; float32). Sums are repeatable as those of embedding_backward(), to which `order` belongs too.
void add_value_embedding_backward(const at::Tensor& dv, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                                  const at::Tensor& ids, const at::Tensor& g, at::Tensor& dh, at::Tensor& d_gate,
                                  at::Tensor& d_table, const TokenOrder& order = {});

}  // namespace nanochat::ops
