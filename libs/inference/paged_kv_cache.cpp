#include "inference/internal/paged_kv_cache.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <utility>

#include "core/errors.h"
#include "model/layout.h"
#include "ops/device.h"

namespace nanochat {

at::ScalarType kv_cache_dtype(at::ScalarType dtype, bool fp8) {
  if (!fp8) return dtype;
  if (dtype != at::kBFloat16) throw ConfigError("a KV cache in FP8 needs a model in bfloat16");
  return at::kFloat8_e4m3fn;
}

PagedKvCache::PagedKvCache(const GptConfig& config, at::ScalarType dtype, std::int64_t blocks, std::int64_t block_size,
                           at::Device device)
    : capacity_(config.sequence_len), n_head_(config.n_head), positions_(at::empty({0}, at::kLong)) {
  TORCH_CHECK(blocks > 0 && block_size > 0, "paged KV cache: ", blocks, " blocks of ", block_size, " positions");
  for (std::int64_t layer = 0; layer < config.n_layer; ++layer) scopes_.push_back(attention_scope(plan_layer(config, layer)));
  const at::TensorOptions options = at::TensorOptions(dtype).device(device);
  // On a GPU all layers are one piece of memory: a cache of the same size that is made later is then likely to lie where this
  // one does, and passes that were recorded for it can be used again. On a CPU memory is taken as blocks are first written,
  // unless commit() comes before.
  at::Tensor all;
  if (device.is_cuda()) all = at::empty({2, config.n_layer, blocks, config.n_kv_head, block_size, config.head_dim()}, options);
  for (const std::int64_t kind : {0, 1}) {
    for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
      (kind == 0 ? keys_ : values_)
          .push_back(all.defined() ? all[kind][layer]
                                   : at::empty({blocks, config.n_kv_head, block_size, config.head_dim()}, options));
    }
  }
}

std::int64_t PagedKvCache::bytes_per_block(const GptConfig& config, at::ScalarType dtype, std::int64_t block_size) {
  return 2 * config.n_layer * config.n_kv_head * config.head_dim() * block_size *
         static_cast<std::int64_t>(c10::elementSize(dtype));
}

void PagedKvCache::commit() {
  for (std::vector<at::Tensor>* slabs : {&keys_, &values_}) {
    for (at::Tensor& slab : *slabs) slab.zero_();
  }
}

void PagedKvCache::set_batch(ops::PagedBatch batch, std::vector<std::int32_t> before) {
  TORCH_CHECK(before.empty() || before.size() == batch.sequences.size(), "paged KV cache: ", before.size(), " tokens before ",
              batch.sequences.size(), " sequences");
  batch_ = std::move(batch);
  before_ = std::move(before);
  positions_ = at::empty({batch_.tokens()}, at::kLong);
  std::int64_t* position = positions_.data_ptr<std::int64_t>();
  for (const ops::PagedBatch::Sequence& sequence : batch_.sequences) {
    for (std::int64_t i = 0; i < sequence.tokens; ++i) *position++ = sequence.start + i;
  }
  device_batch_.reset();
  if (positions_.numel() > 0 && ops::DevicePagedBatch::takes(keys_.front()) && !ops::use_reference_kernels()) {
    device_batch_.emplace(batch_, keys_.front(), n_head_);
  }
}

at::Tensor PagedKvCache::tokens_before(const at::Tensor& ids) {
  TORCH_CHECK(ids.dim() == 2 && ids.size(1) == 1 && ids.size(0) == positions_.numel(), "paged KV cache: ids ", ids.sizes(),
              " do not fit a batch of ", positions_.numel(), " tokens");
  const at::Tensor before = at::full_like(ids, -1);
  if (ids.size(0) > 1) before.narrow(0, 1, ids.size(0) - 1).copy_(ids.narrow(0, 0, ids.size(0) - 1));
  std::vector<std::int64_t> rows;  // the first of each sequence
  std::vector<std::int32_t> tokens;
  std::int64_t row = 0;
  for (std::size_t i = 0; i < batch_.sequences.size(); ++i) {
    const ops::PagedBatch::Sequence& sequence = batch_.sequences[i];
    if (sequence.tokens == 0) continue;
    TORCH_CHECK(sequence.start == 0 || (!before_.empty() && before_[i] >= 0), "paged KV cache: the token before position ",
                sequence.start, " is not known");
    rows.push_back(row);
    tokens.push_back(sequence.start == 0 ? -1 : before_[i]);
    row += sequence.tokens;
  }
  before.view({-1}).index_copy_(0, at::tensor(rows, at::kLong).to(ids.device()), at::tensor(tokens, at::kInt).to(ids.device()));
  return before;
}

at::Tensor PagedKvCache::attend(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  TORCH_CHECK(layer >= 0 && layer < static_cast<std::int64_t>(keys_.size()), "paged KV cache: no layer ", layer);
  TORCH_CHECK(q.dim() == 4 && q.size(1) == 1 && q.size(0) == positions_.numel(), "paged KV cache: q ", q.sizes(),
              " does not fit a batch of ", positions_.numel(), " tokens");
  at::Tensor& keys = keys_[static_cast<std::size_t>(layer)];
  at::Tensor& values = values_[static_cast<std::size_t>(layer)];
  const ops::AttentionScope& scope = scopes_[static_cast<std::size_t>(layer)];
  if (device_batch_) {
    ops::paged_store(k.select(1, 0), v.select(1, 0), *device_batch_, keys, values);
    return ops::paged_attention(q.select(1, 0), keys, values, *device_batch_, scope).unsqueeze(1);
  }
  ops::paged_store(k.select(1, 0), v.select(1, 0), batch_, keys, values);
  return ops::paged_attention(q.select(1, 0), keys, values, batch_, scope).unsqueeze(1);
}

void PagedKvCache::advance(std::int64_t tokens) {
  TORCH_CHECK(tokens == 1, "paged KV cache: rows are single tokens, not ", tokens);
  set_batch({});
}

void PagedKvCache::copy_block(std::int32_t from, std::int32_t to) {
  for (std::vector<at::Tensor>* slabs : {&keys_, &values_}) {
    for (at::Tensor& slab : *slabs) slab.select(0, to).copy_(slab.select(0, from));
  }
}

}  // namespace nanochat
