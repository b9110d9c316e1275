#include "ops/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/row_products.h"
#include "ops/cuda/backend.h"
#include "ops/document_bounds.h"
#include "ops/internal/dispatch.h"

namespace nanochat::ops {
namespace {

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, "attention: expected (B, T, heads, D), got ", q.sizes(), ", ",
              k.sizes(), ", ", v.sizes());
  TORCH_CHECK(k.sizes() == v.sizes() && q.size(0) == k.size(0) && q.size(3) == k.size(3) && q.size(2) % k.size(2) == 0,
              "attention: q ", q.sizes(), ", k ", k.sizes(), " and v ", v.sizes(), " do not fit together");
}

// (B, T, NKV, D) -> (B, NH, T, D), each key/value head standing for its group of query heads.
at::Tensor per_query_head(const at::Tensor& x, std::int64_t n_head) {
  const std::int64_t group = n_head / x.size(2);
  if (group == 1) return x.transpose(1, 2);
  return x.repeat_interleave(group, 2).transpose(1, 2);
}

// LibTorch's flash kernels for CPUs run bf16 at half the speed of float32 or less, so bf16 goes through float32 copies.
at::Tensor as_float(const at::Tensor& x) { return x.to(at::kFloat); }

// The kernels for this processor, when they take these tensors.
const cpu::AttentionKernels* own_kernels(const at::Tensor& q) {
  const cpu::AttentionKernels* kernels = cpu::attention_kernels();
  const bool fits = kernels != nullptr && q.scalar_type() == at::kBFloat16 && q.size(3) % kernels->d_multiple == 0;
  return fits ? kernels : nullptr;
}

at::Tensor dense_heads(const at::Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

// One head of (1, N, heads, D) from a position on.
cpu::HeadRows rows_of(const at::Tensor& x, std::int64_t position, std::int64_t head) {
  const auto* data = static_cast<const cpu::bf16*>(x.const_data_ptr());
  return {data + position * x.stride(1) + head * x.stride(2), x.stride(1)};
}
cpu::MutableHeadRows mutable_rows_of(const at::Tensor& x, std::int64_t position, std::int64_t head) {
  return {static_cast<cpu::bf16*>(x.data_ptr()) + position * x.stride(1) + head * x.stride(2), x.stride(1)};
}

// (B, T, heads, D) -> (1, B * T, heads, D), a view where rows follow each other as they do in the model.
at::Tensor one_row(const at::Tensor& x) { return x.flatten(0, 1).unsqueeze(0); }

// Rows as documents of one length.
std::vector<std::int32_t> row_offsets(const at::Tensor& q) {
  std::vector<std::int32_t> offsets;
  for (std::int64_t row = 0; row <= q.size(0); ++row) offsets.push_back(static_cast<std::int32_t>(row * q.size(1)));
  return offsets;
}

// Calls body(i, scratch) for every i in [0, n), with a scratch of a thread.
template <class Body>
void for_each_head(std::int64_t n, std::size_t scratch_bytes, const Body& body) {
  parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
    constexpr std::size_t kAlignment = 64;
    std::size_t space = scratch_bytes + kAlignment;
    const auto memory = std::make_unique_for_overwrite<char[]>(space);
    void* scratch = memory.get();
    std::align(kAlignment, scratch_bytes, scratch, space);
    for (std::int64_t i = begin; i < end; ++i) body(i, scratch);
  });
}

// Document i holds positions offsets[i] to offsets[i + 1], the longest of them `longest`. Its part of logsumexp begins at
// offsets[i] * NH, a head after the other.
AttentionForward forward_by_head(const cpu::AttentionKernels& kernels, const at::Tensor& queries, const at::Tensor& keys,
                                 const at::Tensor& values, const std::vector<std::int32_t>& offsets, std::int64_t longest) {
  const at::Tensor q = one_row(dense_heads(queries)), k = one_row(dense_heads(keys)), v = one_row(dense_heads(values));
  const std::int64_t n_head = q.size(2), d = q.size(3), group = n_head / k.size(2);
  AttentionForward forward{
      at::empty(queries.sizes(), q.options()), at::empty({queries.size(0), n_head, queries.size(1)}, at::kFloat), {}, {}};
  const at::Tensor out = one_row(forward.out);
  const auto documents = static_cast<std::int64_t>(offsets.size()) - 1;
  for_each_head(documents * n_head, kernels.forward_scratch(longest, d), [&](std::int64_t i, void* scratch) {
    const auto document = static_cast<std::size_t>(i / n_head);
    const std::int64_t head = i % n_head, begin = offsets[document], time = offsets[document + 1] - begin;
    kernels.forward(rows_of(q, begin, head), rows_of(k, begin, head / group), rows_of(v, begin, head / group),
                    mutable_rows_of(out, begin, head), typed<float>(forward.logsumexp) + begin * n_head + head * time, time, d,
                    softmax_scale(d), scratch);
  });
  return forward;
}

AttentionBackward backward_by_head(const cpu::AttentionKernels& kernels, const at::Tensor& gradient, const at::Tensor& queries,
                                   const at::Tensor& keys, const at::Tensor& values, const AttentionForward& forward,
                                   const std::vector<std::int32_t>& offsets, std::int64_t longest) {
  // The heads of a group are found d numbers apart.
  const at::Tensor q = one_row(queries.contiguous()), dout = one_row(gradient.contiguous());
  const at::Tensor out = one_row(forward.out.contiguous());
  const at::Tensor k = one_row(dense_heads(keys)), v = one_row(dense_heads(values));
  const std::int64_t n_head = q.size(2), d = q.size(3), n_kv_head = k.size(2), group = n_head / n_kv_head;
  AttentionBackward backward{at::empty(queries.sizes(), q.options()), at::empty(keys.sizes(), q.options()),
                             at::empty(values.sizes(), q.options())};
  const at::Tensor dq = one_row(backward.dq), dk = one_row(backward.dk), dv = one_row(backward.dv);
  const auto documents = static_cast<std::int64_t>(offsets.size()) - 1;
  for_each_head(documents * n_kv_head, kernels.backward_scratch(longest, d), [&](std::int64_t i, void* scratch) {
    const auto document = static_cast<std::size_t>(i / n_kv_head);
    const std::int64_t head = i % n_kv_head, first = head * group;
    const std::int64_t begin = offsets[document], time = offsets[document + 1] - begin;
    kernels.backward(rows_of(q, begin, first), rows_of(k, begin, head), rows_of(v, begin, head), rows_of(out, begin, first),
                     rows_of(dout, begin, first), typed<float>(forward.logsumexp) + begin * n_head + first * time,
                     mutable_rows_of(dq, begin, first), mutable_rows_of(dk, begin, head), mutable_rows_of(dv, begin, head),
                     group, time, d, softmax_scale(d), scratch);
  });
  return backward;
}

// The reverse for gradients: sums the heads of a group. (B, NH, T, D) -> (B, T, NKV, D).
at::Tensor sum_groups(const at::Tensor& dx, std::int64_t n_kv_head) {
  const at::Tensor by_time = dx.transpose(1, 2);
  const std::int64_t group = by_time.size(2) / n_kv_head;
  if (group == 1) return by_time;
  return by_time.unflatten(2, {n_kv_head, group}).sum(3);
}

// By ATen's kernels for CPUs, in float32 whatever the type.
AttentionForward aten_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  auto [out, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(as_float(q).transpose(1, 2),
                                                                          per_query_head(as_float(k), q.size(2)),
                                                                          per_query_head(as_float(v), q.size(2)), 0.0,
                                                                          /*is_causal=*/true);
  return {out.transpose(1, 2).to(q.scalar_type()), logsumexp, {}, {}};
}

AttentionBackward aten_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionForward& forward) {
  auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      as_float(dout).transpose(1, 2), as_float(q).transpose(1, 2), per_query_head(as_float(k), q.size(2)),
      per_query_head(as_float(v), q.size(2)), as_float(forward.out).transpose(1, 2), forward.logsumexp, 0.0,
      /*is_causal=*/true);
  const at::ScalarType dtype = q.scalar_type();
  return {dq.transpose(1, 2).to(dtype), sum_groups(dk, k.size(2)).to(dtype), sum_groups(dv, v.size(2)).to(dtype)};
}

// One document of tensors (1, N, heads, D), as a batch of its own; and its part of a logsumexp laid out as above.
struct Document {
  std::int64_t begin, length;
  at::Tensor of(const at::Tensor& x) const { return x.narrow(1, begin, length); }
  at::Tensor logsumexp_of(const at::Tensor& x, std::int64_t n_head) const {
    return x.view({-1}).narrow(0, begin * n_head, length * n_head).view({1, n_head, length});
  }
};

template <class Body>
void for_each_document(const DocumentBounds& documents, const Body& body) {
  for (std::size_t i = 0; i + 1 < documents.offsets.size(); ++i) {
    body(Document{documents.offsets[i], documents.offsets[i + 1] - documents.offsets[i]});
  }
}

AttentionForward aten_forward_by_document(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const DocumentBounds& documents) {
  const std::int64_t n_head = q.size(2);
  AttentionForward forward{at::empty(q.sizes(), q.options()), at::empty({q.size(0), n_head, q.size(1)}, at::kFloat), {}, {}};
  const at::Tensor queries = one_row(q), keys = one_row(k), values = one_row(v), out = one_row(forward.out);
  for_each_document(documents, [&](const Document& document) {
    const AttentionForward part = aten_forward(document.of(queries), document.of(keys), document.of(values));
    document.of(out).copy_(part.out);
    document.logsumexp_of(forward.logsumexp, n_head).copy_(part.logsumexp.view({1, n_head, document.length}));
  });
  return forward;
}

AttentionBackward aten_backward_by_document(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward,
                                            const DocumentBounds& documents) {
  const at::Tensor gradient = one_row(dout), queries = one_row(q), keys = one_row(k), values = one_row(v);
  const at::Tensor out = one_row(forward.out);
  AttentionBackward backward{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), q.options()),
                             at::empty(v.sizes(), q.options())};
  const at::Tensor dq = one_row(backward.dq), dk = one_row(backward.dk), dv = one_row(backward.dv);
  for_each_document(documents, [&](const Document& document) {
    const AttentionForward of_document{document.of(out), document.logsumexp_of(forward.logsumexp, q.size(2)), {}, {}};
    const AttentionBackward part = aten_backward(document.of(gradient), document.of(queries), document.of(keys),
                                                 document.of(values), of_document);
    document.of(dq).copy_(part.dq);
    document.of(dk).copy_(part.dk);
    document.of(dv).copy_(part.dv);
  });
  return backward;
}

void check_scope(const at::Tensor& q, const AttentionScope& scope) {
  TORCH_CHECK(!scope.window, "attention: no kernel has sliding windows, a window of ", scope.window.value_or(0), " was given");
  if (scope.documents == nullptr) return;
  TORCH_CHECK(scope.documents->offsets.size() >= 2 && scope.documents->offsets.back() == q.size(0) * q.size(1),
              "attention: the documents do not fit q ", q.sizes());
}

}  // namespace

AttentionForward causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionScope& scope) {
  check_shapes(q, k, v);
  check_scope(q, scope);
  const DocumentBounds* documents = scope.documents;
  if (q.is_cuda()) return cuda::causal_attention(q, k, v, scope);
  if (const auto* kernels = own_kernels(q)) {
    return documents != nullptr ? forward_by_head(*kernels, q, k, v, documents->offsets, documents->longest)
                                : forward_by_head(*kernels, q, k, v, row_offsets(q), q.size(1));
  }
  return documents != nullptr ? aten_forward_by_document(q, k, v, *documents) : aten_forward(q, k, v);
}

AttentionBackward causal_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward, const AttentionScope& scope) {
  check_shapes(q, k, v);
  check_scope(q, scope);
  const DocumentBounds* documents = scope.documents;
  if (q.is_cuda()) return cuda::causal_attention_backward(dout, q, k, v, forward, scope);
  if (const auto* kernels = own_kernels(q)) {
    return documents != nullptr ? backward_by_head(*kernels, dout, q, k, v, forward, documents->offsets, documents->longest)
                                : backward_by_head(*kernels, dout, q, k, v, forward, row_offsets(q), q.size(1));
  }
  return documents != nullptr ? aten_backward_by_document(dout, q, k, v, forward, *documents)
                              : aten_backward(dout, q, k, v, forward);
}

namespace {

// Strides of a cache slab (B, Tk, NKV, D): rows of keys are dense, and k and v are laid out alike.
bool rows_dense(const at::Tensor& k, const at::Tensor& v) {
  return k.stride(3) == 1 && (k.size(2) == 1 || k.stride(2) == k.size(3)) && k.strides() == v.strides();
}

constexpr std::int64_t kManyQueries = 16;

// By the kernels for few rows, a slab's row being one block. More queries than these are shared out in pieces.
at::Tensor attend_by_head(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::int64_t* start) {
  const std::int64_t queries = q.size(1), n_head = q.size(2), d = q.size(3), group = n_head / k.size(2);
  const std::int64_t pieces = (queries + kQueriesAtOnce - 1) / kQueriesAtOnce;
  const auto block_size = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(k.size(1))));
  const float scale = softmax_scale(d);
  const at::Tensor dense = q.contiguous();
  at::Tensor out = at::empty(q.sizes(), q.options());
  visit_dtype(q, "cached_attention", [&]<class T>(T) {
    const auto attend = cpu::row_kernels<T>(d).attend;
    const T* keys = static_cast<const T*>(k.const_data_ptr());
    const T* values = static_cast<const T*>(v.const_data_ptr());
    parallel_for(q.size(0) * n_head * pieces, row_grain(k.size(1) * d), [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(cpu::attend_scratch(k.size(1))));
      constexpr std::int32_t kBlock = 0;
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t query = i % pieces * kQueriesAtOnce, head = i / pieces % n_head, row = i / (pieces * n_head);
        const std::int64_t offset = row * k.stride(0) + head / group * d, first = ((row * queries + query) * n_head + head) * d;
        const cpu::PagedHead<T> paged{keys + offset, values + offset, &kBlock, block_size, 0, k.stride(1)};
        attend(typed<T>(dense) + first, n_head * d, std::min(kQueriesAtOnce, queries - query), paged, typed<T>(out) + first,
               n_head * d, scratch.data(), start[row] + query + 1, d, scale);
      }
    });
  });
  return out;
}

// Many queries in float32: the keys of a head are packed once for all of them.
at::Tensor attend_by_prompt(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::int64_t* start) {
  constexpr std::int64_t kLeast = 64;  // queries that are worth a packing of their own
  const cpu::PromptAttention& kernel = cpu::prompt_attention();
  const std::int64_t batch = q.size(0), queries = q.size(1), n_head = q.size(2), d = q.size(3), heads = k.size(2);
  const std::int64_t group = n_head / heads, wanted = (4 * num_threads() + batch * heads - 1) / (batch * heads);
  const std::int64_t share = (queries + wanted - 1) / wanted, length = std::max(kLeast, (share + 7) / 8 * 8);
  const std::int64_t pieces = (queries + length - 1) / length;
  const float scale = softmax_scale(d);
  const at::Tensor dense = q.contiguous();
  at::Tensor out = at::empty(q.sizes(), q.options());
  const auto* keys = static_cast<const float*>(k.const_data_ptr());
  const auto* values = static_cast<const float*>(v.const_data_ptr());
  parallel_for(batch * heads * pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    const auto scratch = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(kernel.scratch(k.size(1), d)));
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t query = i % pieces * length, head = i / pieces % heads, row = i / (pieces * heads);
      const std::int64_t offset = row * k.stride(0) + head * d, first = ((row * queries + query) * n_head + head * group) * d;
      kernel.attend(typed<float>(dense) + first, n_head * d, std::min(length, queries - query), keys + offset, values + offset,
                    k.stride(1), group, typed<float>(out) + first, n_head * d, start[row] + query + 1, d, scale, scratch.get());
    }
  });
  return out;
}

}  // namespace

bool prefers_cached_attention(const at::Tensor& q) {
  return q.size(1) == 1 || (q.is_cpu() && q.scalar_type() == at::kFloat && cpu::float_rows_are_fastest());
}

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& start) {
  check_shapes(q, k, v);
  TORCH_CHECK(start.scalar_type() == at::kLong && start.is_contiguous() && start.numel() == q.size(0),
              "cached_attention: start ", start.sizes(), " ", start.scalar_type(), " does not fit q ", q.sizes());
  const std::int64_t queries = q.size(1), keys = k.size(1);
  const std::int64_t* starts = start.const_data_ptr<std::int64_t>();
  for (std::int64_t b = 0; b < q.size(0); ++b) {
    TORCH_CHECK(starts[b] >= 0 && starts[b] + queries <= keys, "cached_attention: row ", b, " needs ", starts[b] + queries,
                " keys, but there are ", keys);
  }
  if (q.is_cpu() && rows_dense(k, v)) {
    const bool many = q.scalar_type() == at::kFloat && queries >= kManyQueries &&
                      q.size(3) % cpu::prompt_attention().d_multiple == 0;
    return many ? attend_by_prompt(q, k, v, starts) : attend_by_head(q, k, v, starts);
  }
  const auto positions = at::TensorOptions(at::kLong).device(q.device());
  const at::Tensor key = at::arange(keys, positions).view({1, 1, 1, keys});
  const at::Tensor last = start.to(q.device()).view({-1, 1, 1, 1}).add(at::arange(queries, positions).view({1, 1, queries, 1}));
  return at::scaled_dot_product_attention(q.transpose(1, 2), per_query_head(k, q.size(2)), per_query_head(v, q.size(2)),
                                          key.le(last))
      .transpose(1, 2);
}

}  // namespace nanochat::ops
