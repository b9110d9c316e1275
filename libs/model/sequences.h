#pragma once
// Internal to model: the positions of the tokens of one pass. A row is one
// document, several packed documents, or the continuation of a row of a key-value
// cache. Only rotary positions and attention depend on this; other code does not.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "model/kv_cache.h"
#include "model/layout.h"
#include "ops/attention.h"
#include "ops/document_bounds.h"
#include "ops/rope.h"

namespace nanochat {

struct Sequences {
  std::int64_t batch = 0, time = 0;  // B rows of T tokens
  ops::RopeTable rope;               // one row per position, or with documents one per token of the batch
  at::Tensor start;                  // int64 (B) on the CPU: position of the first token of each row; undefined: all 0
  std::optional<ops::DocumentBounds> documents = {};  // offsets, or cu_seqlens
  KvCache* cache = nullptr;          // inference only; excludes documents

  std::int64_t tokens() const { return batch * time; }

  // From the fused projection qkv (N, (NH + 2 NKV) D): rotated and normalised q (B, T, NH, D) and k (B, T, NKV, D).
  void rotate(const at::Tensor& qkv, at::Tensor& q, at::Tensor& k, at::Tensor& rstd, double eps) const;
  void rotate_backward(const ops::AttentionBackward& d, const at::Tensor& q, const at::Tensor& k, const at::Tensor& rstd,
                       at::Tensor& d_qkv) const;

  // v: (B, T, NKV, D), the last dimension dense.
  ops::AttentionForward attend(std::int64_t layer, const LayerPlan& plan, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v) const;
  ops::AttentionBackward attend_backward(const LayerPlan& plan, const at::Tensor& d_out, const at::Tensor& q,
                                         const at::Tensor& k, const at::Tensor& v, const ops::AttentionForward& forward) const;

 private:
  ops::AttentionScope scope(const LayerPlan& plan) const;  // with the documents
};

}  // namespace nanochat
