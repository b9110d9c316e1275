#pragma once
// The simplest KvCache: one tensor per layer, (rows, positions, NKV, D), with a separate length for
// each row. The tensor doubles as rows get longer, up to `max_positions`; dropping rows keeps it.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/kv_cache.h"

namespace nanochat {

// Not thread-safe.
class ContiguousKvCache : public KvCache {
 public:
  ContiguousKvCache(const GptConfig& config, at::ScalarType dtype, std::int64_t batch, std::int64_t max_positions,
                    at::Device device = at::kCPU);

  const at::Tensor& start() const override { return start_; }
  std::int64_t capacity() const override { return max_positions_; }
  std::int64_t batch() const { return start_.numel(); }
  at::Tensor tokens_before(const at::Tensor& ids) override;
  at::Tensor attend(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override;
  void advance(std::int64_t tokens) override;

  // Sets the number of valid positions of each row (for a prompt shorter than the padded batch), or resets to 0.
  void set_start(const std::vector<std::int64_t>& positions);
  // Keeps only these rows, in this order: drops finished sequences, or copies one row to many.
  void select_rows(const std::vector<std::int64_t>& rows);
  // A cache with copies of these rows, which may be repeated, with room for `room` more positions.
  ContiguousKvCache copy_rows(const std::vector<std::int64_t>& rows, std::int64_t room) const;
  // Appends all rows of another cache of the same model, dtype and max_positions.
  void append_rows(const ContiguousKvCache& other);

 private:
  std::int64_t longest() const;  // number of positions in the longest row
  void reserve(std::int64_t rows, std::int64_t positions);

  std::vector<at::Tensor> keys_, values_;  // per layer; (allocated rows, allocated positions, NKV, D)
  // The tokens themselves, of a model that smears embeddings; laid out likewise, int32 (allocated rows, allocated positions, 1,
  // 1), as one element or none, so that every function treats keys, values and tokens alike.
  std::vector<at::Tensor> tokens_;
  std::vector<ops::AttentionScope> scopes_;  // per layer
  at::Tensor start_;
  std::int64_t max_positions_;
};

}  // namespace nanochat
