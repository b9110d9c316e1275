#include "inference/contiguous_kv_cache.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>

#include "ops/attention.h"

namespace nanochat {
namespace {

constexpr std::int64_t kFirstPositions = 64;

// Copies x (B, T, NKV, D) behind the cached positions of each row of a slab.
void store(const at::Tensor& x, const std::int64_t* start, at::Tensor& slab) {
  if (slab.is_cuda()) {
    const bool together = std::all_of(start, start + x.size(0), [&](std::int64_t first) { return first == start[0]; });
    if (together) {
      slab.narrow(0, 0, x.size(0)).narrow(1, start[0], x.size(1)).copy_(x);
      return;
    }
    for (std::int64_t b = 0; b < x.size(0); ++b) slab.select(0, b).narrow(0, start[b], x.size(1)).copy_(x.select(0, b));
    return;
  }
  const bool dense = x.stride(3) == 1 && (x.size(2) == 1 || x.stride(2) == x.size(3));
  const at::Tensor rows = dense ? x : x.contiguous();
  const auto element = static_cast<std::int64_t>(x.element_size());
  const auto bytes = static_cast<std::size_t>(x.size(2) * x.size(3) * element);
  const char* from = static_cast<const char*>(rows.const_data_ptr());
  char* to = static_cast<char*>(slab.data_ptr());
  for (std::int64_t b = 0; b < x.size(0); ++b) {
    for (std::int64_t t = 0; t < x.size(1); ++t) {
      std::memcpy(to + (b * slab.stride(0) + (start[b] + t) * slab.stride(1)) * element,
                  from + (b * rows.stride(0) + t * rows.stride(1)) * element, bytes);
    }
  }
}

}  // namespace

ContiguousKvCache::ContiguousKvCache(const GptConfig& config, at::ScalarType dtype, std::int64_t batch,
                                     std::int64_t max_positions, at::Device device)
    : start_(at::zeros({batch}, at::kLong)), max_positions_(max_positions) {
  TORCH_CHECK(batch >= 0 && max_positions > 0, "KV cache: ", batch, " rows of ", max_positions, " positions");
  for (std::vector<at::Tensor>* slabs : {&keys_, &values_}) {
    for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
      slabs->push_back(at::empty({batch, 0, config.n_kv_head, config.head_dim()}, at::TensorOptions(dtype).device(device)));
    }
  }
  if (config.is_2026()) tokens_.push_back(at::empty({batch, 0, 1, 1}, at::TensorOptions(at::kInt).device(device)));
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) scopes_.push_back(attention_scope(plan_layer(config, layer)));
}

std::int64_t ContiguousKvCache::longest() const {
  const std::int64_t* start = start_.const_data_ptr<std::int64_t>();
  return batch() == 0 ? 0 : *std::max_element(start, start + batch());
}

void ContiguousKvCache::reserve(std::int64_t rows, std::int64_t positions) {
  TORCH_CHECK(positions <= max_positions_, "KV cache: ", positions, " positions exceed its capacity of ", max_positions_);
  const std::int64_t old_rows = keys_.front().size(0), old_positions = keys_.front().size(1);
  if (rows <= old_rows && positions <= old_positions) return;
  const std::int64_t new_rows = rows <= old_rows ? old_rows : std::max(rows, 2 * old_rows);
  std::int64_t new_positions = old_positions;
  if (positions > old_positions) {
    new_positions = std::min(max_positions_, std::max({positions, 2 * old_positions, kFirstPositions}));
  }
  const std::int64_t used_rows = std::min(batch(), old_rows), used_positions = std::min(longest(), old_positions);
  for (std::vector<at::Tensor>* slabs : {&keys_, &values_, &tokens_}) {
    for (at::Tensor& slab : *slabs) {
      // Zero, not uninitialised: masked attention multiplies what it masks by 0, and 0 * NaN is NaN.
      const at::Tensor grown = at::zeros({new_rows, new_positions, slab.size(2), slab.size(3)}, slab.options());
      grown.narrow(0, 0, used_rows)
          .narrow(1, 0, used_positions)
          .copy_(slab.narrow(0, 0, used_rows).narrow(1, 0, used_positions));
      slab = grown;
    }
  }
}

at::Tensor ContiguousKvCache::tokens_before(const at::Tensor& ids) {
  TORCH_CHECK(!tokens_.empty() && ids.dim() == 2 && ids.size(0) == batch(), "KV cache: ids ", ids.sizes(), " do not fit ",
              batch(), " rows of tokens");
  reserve(batch(), longest() + ids.size(1));
  at::Tensor& tokens = tokens_.front();
  const std::int64_t* start = start_.const_data_ptr<std::int64_t>();
  store(ids.unsqueeze(2).unsqueeze(3), start, tokens);
  const at::Tensor before = at::full_like(ids, -1);
  if (ids.size(1) > 1) before.narrow(1, 1, ids.size(1) - 1).copy_(ids.narrow(1, 0, ids.size(1) - 1));
  const at::Tensor last = start_.sub(1).clamp_min_(0).to(ids.device());
  const at::Tensor cached = tokens.narrow(0, 0, batch()).flatten(1).gather(1, last.unsqueeze(1));
  before.narrow(1, 0, 1).copy_(cached.masked_fill(start_.eq(0).to(ids.device()).unsqueeze(1), -1));
  return before;
}

at::Tensor ContiguousKvCache::attend(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  TORCH_CHECK(layer >= 0 && layer < static_cast<std::int64_t>(keys_.size()), "KV cache: no layer ", layer);
  TORCH_CHECK(k.dim() == 4 && k.size(0) == batch() && v.sizes() == k.sizes() && k.size(2) == keys_.front().size(2) &&
                  k.size(3) == keys_.front().size(3) && k.scalar_type() == keys_.front().scalar_type() &&
                  v.scalar_type() == k.scalar_type(),
              "KV cache: k ", k.sizes(), " ", k.scalar_type(), " and v ", v.sizes(), " ", v.scalar_type(), " do not fit ",
              batch(), " rows of ", keys_.front().sizes(), " ", keys_.front().scalar_type());
  const std::int64_t past = longest(), end = past + k.size(1);
  reserve(batch(), end);
  at::Tensor& keys = keys_[static_cast<std::size_t>(layer)];
  at::Tensor& values = values_[static_cast<std::size_t>(layer)];
  const std::int64_t* start = start_.const_data_ptr<std::int64_t>();
  store(k, start, keys);
  store(v, start, values);
  const ops::AttentionScope& scope = scopes_[static_cast<std::size_t>(layer)];
  if (past == 0 && !ops::prefers_cached_attention(q)) return ops::causal_attention(q, k, v, scope).out;
  const auto cached = [&](const at::Tensor& slab) { return slab.narrow(0, 0, batch()).narrow(1, 0, end); };
  return ops::cached_attention(q, cached(keys), cached(values), start_, scope);
}

void ContiguousKvCache::advance(std::int64_t tokens) { start_.add_(tokens); }

void ContiguousKvCache::set_start(const std::vector<std::int64_t>& positions) {
  TORCH_CHECK(static_cast<std::int64_t>(positions.size()) == batch(), "KV cache: ", positions.size(), " lengths for ", batch(),
              " rows");
  const std::int64_t held = keys_.front().size(1);
  for (const std::int64_t n : positions) {
    TORCH_CHECK(n >= 0 && n <= held, "KV cache: length ", n, " of a row is outside the ", held, " positions stored");
  }
  std::copy(positions.begin(), positions.end(), start_.data_ptr<std::int64_t>());
}

void ContiguousKvCache::select_rows(const std::vector<std::int64_t>& rows) {
  // In place when no row is overwritten before it is read: the usual case, dropping a few.
  bool in_place = static_cast<std::int64_t>(rows.size()) <= keys_.front().size(0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    TORCH_CHECK(rows[i] >= 0 && rows[i] < batch(), "KV cache: no row ", rows[i], " of ", batch());
    const bool unread = rows[i] >= static_cast<std::int64_t>(i);
    in_place = in_place && (unread || rows[static_cast<std::size_t>(rows[i])] == rows[i]);
  }
  const at::Tensor index = at::tensor(rows, at::kLong);
  const at::Tensor index_of_slabs = index.to(keys_.front().device());
  const std::int64_t* start = start_.const_data_ptr<std::int64_t>();
  for (std::vector<at::Tensor>* slabs : {&keys_, &values_, &tokens_}) {
    for (at::Tensor& slab : *slabs) {
      if (!in_place) {
        slab = slab.index_select(0, index_of_slabs);
        continue;
      }
      for (std::size_t i = 0; i < rows.size(); ++i) {
        if (rows[i] == static_cast<std::int64_t>(i)) continue;
        slab.select(0, static_cast<std::int64_t>(i))
            .narrow(0, 0, start[rows[i]])
            .copy_(slab.select(0, rows[i]).narrow(0, 0, start[rows[i]]));
      }
    }
  }
  start_ = start_.index_select(0, index);
}

ContiguousKvCache ContiguousKvCache::copy_rows(const std::vector<std::int64_t>& rows, std::int64_t room) const {
  for (const std::int64_t row : rows) TORCH_CHECK(row >= 0 && row < batch(), "KV cache: no row ", row, " of ", batch());
  const std::int64_t used = longest(), positions = std::min(max_positions_, used + room);
  ContiguousKvCache copy = *this;  // the slabs are replaced below
  for (std::vector<at::Tensor>* slabs : {&copy.keys_, &copy.values_, &copy.tokens_}) {
    for (at::Tensor& slab : *slabs) {
      const at::Tensor from = slab;
      slab = at::empty({static_cast<std::int64_t>(rows.size()), positions, from.size(2), from.size(3)}, from.options());
      slab.narrow(1, used, positions - used).zero_();  // see reserve()
      for (std::size_t i = 0; i < rows.size(); ++i) {
        slab.select(0, static_cast<std::int64_t>(i)).narrow(0, 0, used).copy_(from.select(0, rows[i]).narrow(0, 0, used));
      }
    }
  }
  copy.start_ = start_.index_select(0, at::tensor(rows, at::kLong));
  return copy;
}

void ContiguousKvCache::append_rows(const ContiguousKvCache& other) {
  TORCH_CHECK(other.keys_.size() == keys_.size() && other.max_positions_ == max_positions_ &&
                  other.keys_.front().scalar_type() == keys_.front().scalar_type() &&
                  other.keys_.front().sizes().slice(2) == keys_.front().sizes().slice(2),
              "KV cache: rows of another model or capacity");
  const std::int64_t before = batch(), added = other.batch(), positions = other.longest();
  reserve(before + added, std::max(longest(), positions));
  const auto append = [&](const std::vector<at::Tensor>& from, std::vector<at::Tensor>& to) {
    for (std::size_t layer = 0; layer < to.size(); ++layer) {
      to[layer].narrow(0, before, added).narrow(1, 0, positions).copy_(from[layer].narrow(0, 0, added).narrow(1, 0, positions));
    }
  };
  append(other.keys_, keys_);
  append(other.values_, values_);
  append(other.tokens_, tokens_);
  const at::Tensor joined = at::empty({before + added}, at::kLong);
  joined.narrow(0, 0, before).copy_(start_);
  joined.narrow(0, before, added).copy_(other.start_);
  start_ = joined;
}

}  // namespace nanochat
