#pragma once
// Attention over a cache in blocks (PagedAttention: Kwon et al. 2023) for a flat list
// of tokens of several sequences: decodes and chunks of prompts together. On CPUs with
// our kernels (cpu/row_products.h), batch-invariant. On GPUs with kernels for heads of
// 64 and 128 (cuda/paged_attention.cu); other heads use ATen, sequence by sequence.
//
// The cache has the type of the queries, keys and values that are given. For those in bfloat16 it may also be
// at::kFloat8_e4m3fn (E4M3 of Micikevicius et al. 2022), which takes half the memory. Keys and values are then rounded to the
// nearest such number without a scale, and magnitudes above 448, the largest one, become 448: normalised keys are at most
// sqrt(D), and values are of order one. ATen computes this, too, so that tests need no GPU.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "ops/attention.h"
#include "ops/rope.h"

namespace nanochat::ops {

// The positions of the tokens of a batch: N tokens; those of one sequence are consecutive and in order.
struct PagedBatch {
  struct Sequence {
    std::int64_t start = 0;             // position of its first token of this batch
    std::int64_t tokens = 0;
    std::vector<std::int32_t> blocks;   // block table: position p is in blocks[p / block_size]
  };
  std::vector<Sequence> sequences;
  std::int64_t tokens() const;
};

// True if the device converts such numbers in its instructions: GPUs of compute capability 8.9 and later.
bool has_fp8_cache(at::Device device);

// k, v: (N, NKV, D) of the batch's tokens, D dense. Writes them to keys and values: (blocks, NKV, block_size, D).
void paged_store(const at::Tensor& k, const at::Tensor& v, const PagedBatch& batch, at::Tensor& keys, at::Tensor& values);

// q: (N, NH, D), dense, NH a multiple of NKV. Token i of a sequence sees positions [0, start + i], or as many of the last of
// them as the scope's window says; of the scope, window and scale count. Returns (N, NH, D).
at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const PagedBatch& batch,
                           const AttentionScope& scope = {});
// The same in ATen, for any device and layout.
at::Tensor paged_attention_reference(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                                     const PagedBatch& batch, const AttentionScope& scope = {});

// How GPU kernels divide the work.
struct PagedOptions {
  // The result for a token is equal bit for bit, whatever else is in the
  // batch and however its prompt is split into chunks. Prompts are slower.
  bool batch_invariant = false;
  // Number of keys that one thread block reads, a multiple of 64; 0: chosen by the size of the batch.
  std::int64_t split = 0;
  // Whether rope_paged_decode() may take the batch. It must not if several sequences of the batch are tokens of one
  // sequence, such as drafted tokens: it reads the keys of earlier positions while others are still stored.
  bool fuse_decodes = true;
};

// A batch in the memory of a GPU, for all layers of a pass:
//   DevicePagedBatch device(batch, keys, n_head);
//   for each layer: rope_qk_norm_store(qkv, table, device, q, keys, values, eps); out = paged_attention(q, keys, values, device);
// The functions below take it on a GPU only, and enqueue work without waiting.
class DevicePagedBatch {
 public:
  // keys: a cache of any layer; all have its shape and device.
  DevicePagedBatch(const PagedBatch& batch, const at::Tensor& keys, std::int64_t n_head, const PagedOptions& options = {});
  // Room for `sequences` decodes of up to `longest` positions, for a recorded graph
  // (device_graph.h): the lists stay in place, and assign() changes their content.
  DevicePagedBatch(std::int64_t sequences, std::int64_t longest, const at::Tensor& keys, std::int64_t n_head,
                   const PagedOptions& options = {});
  // Sets sequences of one token each, at most as many as there is room for. For
  // unused tokens, nothing is stored and attention does not write its output.
  // inputs, before: what inputs() and before() hold from now on, one number for each
  // token, or empty. They travel in the same copy to the device.
  void assign(const PagedBatch& batch, std::span<const std::int32_t> inputs = {}, std::span<const std::int32_t> before = {});
  // True if there are kernels for such a cache. The other functions require this.
  static bool takes(const at::Tensor& keys);

  std::int64_t tokens() const { return tokens_; }
  // int32 (tokens), on the device: position of each token in its sequence,
  // and in the cache as block * block_size + offset; -1 for unused tokens.
  at::Tensor positions() const { return lists_.narrow(0, positions_, tokens_); }
  at::Tensor slots() const { return lists_.narrow(0, slots_, tokens_); }
  // int32 (tokens), on the device, of a batch with room for decodes: the numbers given to assign(); 0 and -1 for unused tokens.
  at::Tensor inputs() const { return lists_.narrow(0, inputs_, tokens_); }
  at::Tensor before() const { return lists_.narrow(0, before_, tokens_); }

  // Whether rope_paged_decode() takes the batch: one token per sequence, a cache of bfloat16 or E4M3,
  // not batch-invariant, no fixed split, on a GPU of compute capability 9.0 or later.
  bool fuses_decodes() const { return decode_parts_ > 0; }

  // For callers of the kernels: tiles of one kind (cuda/kernels.h), and their shared scratch memory.
  struct Tiles {
    std::int64_t begin = 0, count = 0;  // in lists(); two numbers each
    std::int64_t rows = 0;  // maximum number of rows of a tile
    std::int64_t longest = 0, split = 0;  // keys of the longest sequence, and of a split
    std::int64_t splits() const { return count == 0 ? 0 : (longest + split - 1) / split; }
  };
  const at::Tensor& lists() const { return lists_; }  // int32
  std::int64_t sequences() const { return sequences_; }
  std::int64_t tables() const { return tables_; }
  const Tiles& tiles() const { return tiles_; }
  const Tiles& tall_tiles() const { return tall_tiles_; }
  const at::Tensor& partial() const { return partial_; }
  const at::Tensor& counters() const { return counters_; }
  std::int64_t decode_parts() const { return decode_parts_; }  // of each sequence in rope_paged_decode(), or 0

 private:
  struct Lists;
  void choose_decode_parts(const at::Tensor& keys, std::int64_t n_head, const PagedOptions& options);
  void reserve_scratch(const at::Tensor& keys);

  at::Tensor lists_, partial_, counters_;
  std::int64_t blocks_ = 0, block_size_ = 0;  // of the cache, whose memory may go before this does
  std::int64_t tokens_ = 0, sequences_ = 0, tables_ = 0, positions_ = 0, slots_ = 0, inputs_ = 0,
               before_ = 0;  // where each list begins
  Tiles tiles_, tall_tiles_;
  std::int64_t decode_parts_ = 0;
};

void paged_store(const at::Tensor& k, const at::Tensor& v, const DevicePagedBatch& batch, at::Tensor& keys, at::Tensor& values);
// One pass after the fused projection qkv (N, (NH + 2 NKV) * D): rope_qk_norm() of the query heads
// into q (N, NH, D) and of the key heads into the cache, and the values into the cache (ops/rope.h).
void rope_qk_norm_store(const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch, at::Tensor& q,
                        at::Tensor& keys, at::Tensor& values, double eps);
// Of the scope, window and scale count.
at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const DevicePagedBatch& batch,
                           const AttentionScope& scope = {});
// The same to `out`, dense as q.
void paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const DevicePagedBatch& batch,
                     const AttentionScope& scope, at::Tensor& out);
// rope_qk_norm_store() and paged_attention() of a batch that fuses_decodes(), in one kernel. It reads the
// cached keys of earlier tokens while kernels before it still run: nothing that was enqueued since the
// last copy from the host may have written them. out: (N, NH, D). stream (N, C): qkv
// is a product of these rows, which should have been normalised first; undefined: they were.
void rope_paged_decode(const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch, at::Tensor& keys,
                       at::Tensor& values, const AttentionScope& scope, double eps, at::Tensor& out,
                       const at::Tensor& stream = {});

}  // namespace nanochat::ops
