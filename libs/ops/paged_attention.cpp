#include "ops/paged_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>

#include "ops/attention.h"
#include "ops/cpu/row_products.h"
#include "ops/dispatch.h"

namespace nanochat::ops {
namespace {

void check(const at::Tensor& x, const at::Tensor& keys, const at::Tensor& values, const PagedBatch& batch) {
  TORCH_CHECK(x.dim() == 3 && keys.dim() == 4 && keys.sizes() == values.sizes() && keys.is_contiguous() &&
                  values.is_contiguous() && x.size(0) == batch.tokens() && x.size(2) == keys.size(3) &&
                  x.size(1) % keys.size(1) == 0 && x.scalar_type() == keys.scalar_type(),
              "paged attention: ", x.sizes(), " ", x.scalar_type(), " of ", batch.tokens(), " tokens does not fit blocks ",
              keys.sizes(), " ", keys.scalar_type());
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    const auto held = static_cast<std::int64_t>(sequence.blocks.size()) * keys.size(2);
    TORCH_CHECK(sequence.start >= 0 && sequence.start + sequence.tokens <= held, "paged attention: position ",
                sequence.start + sequence.tokens - 1, " is beyond a table of ", sequence.blocks.size(), " blocks");
    for (const std::int32_t block : sequence.blocks) {
      TORCH_CHECK(block >= 0 && block < keys.size(0), "paged attention: no block ", block, " of ", keys.size(0));
    }
  }
}

// Tokens of one sequence that are answered together.
struct Queries {
  const PagedBatch::Sequence* sequence;
  std::int64_t row, count, position;  // of the batch, and of the first of them in the sequence
};

std::vector<Queries> queries_of(const PagedBatch& batch) {
  std::vector<Queries> queries;
  std::int64_t row = 0;
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    for (std::int64_t i = 0; i < sequence.tokens; i += kQueriesAtOnce) {
      queries.push_back({&sequence, row + i, std::min(kQueriesAtOnce, sequence.tokens - i), sequence.start + i});
    }
    row += sequence.tokens;
  }
  return queries;
}

// Calls body(first token, tokens, block, first slot) for each stretch of tokens that lies in one block.
template <class Body>
void for_each_stretch(const PagedBatch& batch, std::int64_t block_size, const Body& body) {
  std::int64_t token = 0;
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    for (std::int64_t i = 0; i < sequence.tokens;) {
      const std::int64_t position = sequence.start + i, slot = position % block_size;
      const std::int64_t length = std::min(block_size - slot, sequence.tokens - i);
      body(token + i, length, sequence.blocks[static_cast<std::size_t>(position / block_size)], slot);
      i += length;
    }
    token += sequence.tokens;
  }
}

}  // namespace

std::int64_t PagedBatch::tokens() const {
  std::int64_t total = 0;
  for (const Sequence& sequence : sequences) total += sequence.tokens;
  return total;
}

void paged_store(const at::Tensor& k, const at::Tensor& v, const PagedBatch& batch, at::Tensor& keys, at::Tensor& values) {
  check(k, keys, values, batch);
  TORCH_CHECK(k.size(1) == keys.size(1) && v.sizes() == k.sizes() && k.stride(2) == 1 && v.stride(2) == 1,
              "paged_store: k ", k.sizes(), " and v ", v.sizes(), " do not fit blocks ", keys.sizes());
  const std::int64_t heads = keys.size(1), block_size = keys.size(2), d = keys.size(3);
  const auto each = [&](const at::Tensor& from, at::Tensor& to) {
    for_each_stretch(batch, block_size, [&](std::int64_t token, std::int64_t length, std::int64_t block, std::int64_t slot) {
      if (!from.is_cpu()) {
        to.select(0, block).narrow(1, slot, length).copy_(from.narrow(0, token, length).transpose(0, 1));
        return;
      }
      const auto element = static_cast<std::int64_t>(from.element_size());
      const auto* source = static_cast<const char*>(from.const_data_ptr());
      auto* target = static_cast<char*>(to.data_ptr());
      for (std::int64_t i = 0; i < length; ++i) {
        for (std::int64_t head = 0; head < heads; ++head) {
          std::memcpy(target + ((block * heads + head) * block_size + slot + i) * d * element,
                      source + ((token + i) * from.stride(0) + head * from.stride(1)) * element,
                      static_cast<std::size_t>(d * element));
        }
      }
    });
  };
  each(k, keys);
  each(v, values);
}

at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const PagedBatch& batch) {
  check(q, keys, values, batch);
  if (!q.is_cpu()) return paged_attention_reference(q, keys, values, batch);
  const std::int64_t n_head = q.size(1), d = q.size(2), heads = keys.size(1), block_size = keys.size(2);
  const std::int64_t group = n_head / heads;
  const std::vector<Queries> all = queries_of(batch);
  const auto n = static_cast<std::int64_t>(all.size());
  std::int64_t longest = 0;
  for (const Queries& queries : all) longest = std::max(longest, queries.position + queries.count);
  const float scale = softmax_scale(d);
  at::Tensor out = at::empty(q.sizes(), q.options());
  visit_dtype(q, "paged_attention", [&]<class T>(T) {
    const auto attend = cpu::row_kernels<T>(d).attend;
    // Heads first: threads then share out the heads of every sequence, whatever their lengths.
    parallel_for(n * n_head, row_grain(longest * d), [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(cpu::attend_scratch(longest)));
      for (std::int64_t i = begin; i < end; ++i) {
        const Queries& queries = all[static_cast<std::size_t>(i % n)];
        const std::int64_t head = i / n, first = (queries.row * n_head + head) * d, offset = head / group * block_size * d;
        const cpu::PagedHead<T> paged{typed<T>(keys) + offset, typed<T>(values) + offset, queries.sequence->blocks.data(),
                                      block_size, heads * block_size * d, d};
        attend(typed<T>(q) + first, n_head * d, queries.count, paged, typed<T>(out) + first, n_head * d, scratch.data(),
               queries.position + 1, d, scale);
      }
    });
  });
  return out;
}

at::Tensor paged_attention_reference(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                                     const PagedBatch& batch) {
  check(q, keys, values, batch);
  at::Tensor out = at::empty(q.sizes(), q.options());
  std::int64_t token = 0;
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    const std::int64_t seen = sequence.start + sequence.tokens, blocks = (seen + keys.size(2) - 1) / keys.size(2);
    const at::Tensor table = at::tensor(at::ArrayRef<std::int32_t>(sequence.blocks.data(), static_cast<std::size_t>(blocks)),
                                        at::kInt).to(keys.device());
    const auto gather = [&](const at::Tensor& slab) {  // (1, positions, NKV, D)
      return slab.index_select(0, table).transpose(1, 2).flatten(0, 1).narrow(0, 0, seen).unsqueeze(0);
    };
    const at::Tensor start = at::tensor({sequence.start}, at::kLong);
    const at::Tensor queries = q.narrow(0, token, sequence.tokens).unsqueeze(0);
    out.narrow(0, token, sequence.tokens).copy_(cached_attention(queries, gather(keys), gather(values), start).squeeze(0));
    token += sequence.tokens;
  }
  return out;
}

}  // namespace nanochat::ops
