#pragma once
// Attention over a cache in blocks (PagedAttention: Kwon et al. 2023), for a flat list of tokens that belong to sequences
// of any length: decodes and chunks of prompts side by side. On CPUs by our own kernels (cpu/row_products.h), where the result
// of a token does not depend on the others; elsewhere sequence by sequence through ATen.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace nanochat::ops {

// Where the tokens of a batch stand: N tokens, those of a sequence together and in order.
struct PagedBatch {
  struct Sequence {
    std::int64_t start = 0;             // position of its first token of this batch
    std::int64_t tokens = 0;
    std::vector<std::int32_t> blocks;   // block table: position p lies in blocks[p / block_size]
  };
  std::vector<Sequence> sequences;
  std::int64_t tokens() const;
};

// k, v: (N, NKV, D) of the batch's tokens, D dense. Writes them to keys and values: (blocks, NKV, block_size, D).
void paged_store(const at::Tensor& k, const at::Tensor& v, const PagedBatch& batch, at::Tensor& keys, at::Tensor& values);

// q: (N, NH, D), dense, NH a multiple of NKV. Token i of a sequence sees positions [0, start + i]. Returns (N, NH, D).
at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const PagedBatch& batch);
// The same in ATen, for any device and layout.
at::Tensor paged_attention_reference(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                                     const PagedBatch& batch);

}  // namespace nanochat::ops
