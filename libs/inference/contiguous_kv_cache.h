#pragma once
// The simplest KvCache: one slab per layer, (B, capacity, NKV, D), rows at their own lengths.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/kv_cache.h"

namespace nanochat {

// Not thread-safe. Grows by doubling up to `max_positions`.
class ContiguousKvCache : public KvCache {
 public:
  ContiguousKvCache(const GptConfig& config, at::ScalarType dtype, std::int64_t batch, std::int64_t max_positions);

  const at::Tensor& start() const override { return start_; }
  std::int64_t capacity() const override { return max_positions_; }
  at::Tensor attend(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;
  void advance(std::int64_t tokens) override;

  // Sets how many positions of each row count (a prompt shorter than the padded batch), or resets to 0.
  void set_start(const std::vector<std::int64_t>& positions);
  // Keeps only these rows, in this order: drops finished sequences, or copies one row to many.
  void select_rows(const std::vector<std::int64_t>& rows);

 private:
  void grow(std::int64_t positions);
  std::vector<at::Tensor> keys_, values_;  // per layer
  at::Tensor start_;
  std::int64_t max_positions_, allocated_ = 0;
};

}  // namespace nanochat
