#pragma once
// Causal scaled dot-product attention with grouped queries (Vaswani et al. 2017; Ainslie
// et al. 2023), tiled: the T x T scores are never stored (Dao et al. 2022). On CPUs,
// bfloat16 and float32 inference use our kernels, the rest ATen's flash kernels. On GPUs,
// LibTorch's: cuDNN or FlashAttention in bfloat16, memory-efficient attention in float32.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace nanochat::ops {

struct DocumentBounds;

// The keys that a query sees: those of its own document, up to its own position.
struct AttentionScope {
  const DocumentBounds* documents =
      nullptr;  // their offsets, or cu_seqlens (ops/document_bounds.h); null: a row is one document
  // Sliding window: how many earlier positions a query sees at most, besides its own; none: all of its document. Keys outside
  // are skipped, not masked. Where a window ends before a row or document does, GPUs use the windows of FlashAttention in
  // bfloat16; CPUs, and GPUs in float32, use products of blocks of queries with the keys that they see, in float32.
  std::optional<std::int64_t> window = {};
  double scale = 1.0;  // of the scores, besides 1/sqrt(D)
};

struct AttentionForward {
  at::Tensor out;  // (B, T, NH, D), dense
  at::Tensor logsumexp;  // (B, NH, T[, 1]) float32, for the backward pass; with documents the kernels choose the layout
  at::Tensor philox_seed, philox_offset;  // GPUs only: inputs of LibTorch's backward functions
};

// q: (B, T, NH, D); k, v: (B, T, NKV, D) with the last dimension dense, NH a multiple of NKV. Query head h reads
// key/value head h / (NH / NKV). With documents, GPUs use the variable-length kernels of FlashAttention
// in bfloat16 and memory-efficient attention in float32.
AttentionForward causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const AttentionScope& scope = {});

struct AttentionBackward {
  at::Tensor dq, dk, dv;  // shapes of q, k, v
};
AttentionBackward causal_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward,
                                            const AttentionScope& scope = {});

// Attention of queries to a cache: q (B, Tq, NH, D); k, v (B, Tk, NKV, D). Query i of row b sees keys [0, start[b]
// + i]. start is int64 (B) on the CPU, for any device of the others. Of the scope, only window and scale are used.
// Returns (B, Tq, NH, D). Inference only.
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& start,
                            const AttentionScope& scope = {});
// True if this is faster than causal_attention() for prompts that begin with these queries: with one token,
// and in float32 where LibTorch's kernels, which use MKL, reach only half of the processor's rate (linear.h).
bool prefers_cached_attention(const at::Tensor& q);

}  // namespace nanochat::ops
