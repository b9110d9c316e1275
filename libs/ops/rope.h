#pragma once
// Rotary position embedding (Su et al. 2021) with rotated halves, as in the reference's apply_rotary_emb, followed
// by QK-norm, which is RMSNorm over each head (Henry et al. 2020). Both in one pass over the fused projection.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace nanochat::ops {

// cos and sin of position * base^(-2i/head_dim), each (positions, head_dim / 2) float32. With round_to_bf16 the values
// are rounded to bfloat16, as the reference computes them; otherwise as transformers does.
struct RopeTable {
  at::Tensor cos, sin;
};
RopeTable make_rope_table(std::int64_t positions, std::int64_t head_dim, double base, bool round_to_bf16);

// qkv: (B, T, (NH + 2 NKV) * D), the fused projection. Rotates and normalises its query and key heads into
// q (B, T, NH, D) and k (B, T, NKV, D), contiguous; rstd (B, T, NH + NKV) float32 or undefined. Values stay in qkv.
// Row b has the positions start[b] + 0 .. T-1; start may be undefined (all zero) or int64 (B) on the CPU.
void rope_qk_norm(const at::Tensor& qkv, const RopeTable& table, const at::Tensor& start, at::Tensor& q, at::Tensor& k,
                  at::Tensor& rstd, double eps);

// Writes dqkv (B, T, (NH + 2 NKV) * D) from dq, dk and dv, contiguous in the layouts of q, k and the values, and the
// outputs q, k; dv is copied.
void rope_qk_norm_backward(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& rstd, const RopeTable& table, at::Tensor& dqkv);

}  // namespace nanochat::ops
