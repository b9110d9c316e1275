#pragma once
// A KvCache in blocks of `block_size` positions; sequences hold blocks by number (block_pool.h). A batch is a flat
// list of tokens, each a row of its own for the model. Chunks of prompts and single decodes pass through it together.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "model/config.h"
#include "model/kv_cache.h"
#include "ops/paged_attention.h"

namespace nanochat {

// The type of the keys and values of a model that computes in `dtype`. fp8: of EngineOptions. Throws ConfigError for float32.
at::ScalarType kv_cache_dtype(at::ScalarType dtype, bool fp8);

// Not thread-safe.
class PagedKvCache : public KvCache {
 public:
  // dtype: of the keys and values.
  PagedKvCache(const GptConfig& config, at::ScalarType dtype, std::int64_t blocks, std::int64_t block_size,
               at::Device device = at::kCPU);
  static std::int64_t bytes_per_block(const GptConfig& config, at::ScalarType dtype, std::int64_t block_size);

  std::int64_t blocks() const { return keys_.front().size(0); }
  // Of each layer: (blocks, NKV, block_size, D).
  std::vector<at::Tensor>& keys() { return keys_; }
  std::vector<at::Tensor>& values() { return values_; }
  // Takes the memory of all blocks now: the kernel clears each page when it is first written, at half of prefill's time.
  void commit();
  // The input of the next forward pass: ids (N, 1) in the order of the sequences. Blocks must reach their ends.
  // before: for each sequence, the token before its first token of this batch, or -1 at its beginning. Models that smear
  // embeddings read it. If it is empty, every sequence begins with this batch.
  void set_batch(ops::PagedBatch batch, std::vector<std::int32_t> before = {});
  const at::Tensor& start() const override { return positions_; }  // of each token
  std::int64_t capacity() const override { return capacity_; }     // the model's context
  at::Tensor tokens_before(const at::Tensor& ids) override;
  at::Tensor attend(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;
  bool batch_invariant() const override { return true; }
  void advance(std::int64_t tokens) override;                      // the batch is done
  // For all layers: copies block `from` to block `to`.
  void copy_block(std::int32_t from, std::int32_t to);

 private:
  std::int64_t capacity_, n_head_;
  std::vector<at::Tensor> keys_, values_;  // per layer; (blocks, NKV, block_size, D)
  std::vector<ops::AttentionScope> scopes_;  // per layer
  ops::PagedBatch batch_;
  std::vector<std::int32_t> before_;         // for each sequence
  std::optional<ops::DevicePagedBatch> device_batch_;  // the same, if the GPU has kernels for it
  at::Tensor positions_;                   // int64 (N)
};

}  // namespace nanochat
