#include "ops/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <memory>
#include <optional>
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

// Room for the results of queries q (B, T, NH, D). A training step keeps it: created before what is freed sooner, it does not
// divide the memory that others leave.
AttentionForward make_forward(const at::Tensor& q) {
  return {
      at::empty(q.sizes(), q.options()), at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(at::kFloat)), {}, {}};
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
                                 const at::Tensor& values, const std::vector<std::int32_t>& offsets, std::int64_t longest,
                                 float scale) {
  const at::Tensor q = one_row(dense_heads(queries)), k = one_row(dense_heads(keys)), v = one_row(dense_heads(values));
  const std::int64_t n_head = q.size(2), d = q.size(3), group = n_head / k.size(2);
  AttentionForward forward = make_forward(queries);
  const at::Tensor out = one_row(forward.out);
  const auto documents = static_cast<std::int64_t>(offsets.size()) - 1;
  for_each_head(documents * n_head, kernels.forward_scratch(longest, d), [&](std::int64_t i, void* scratch) {
    const auto document = static_cast<std::size_t>(i / n_head);
    const std::int64_t head = i % n_head, begin = offsets[document], time = offsets[document + 1] - begin;
    kernels.forward(rows_of(q, begin, head), rows_of(k, begin, head / group), rows_of(v, begin, head / group),
                    mutable_rows_of(out, begin, head), typed<float>(forward.logsumexp) + begin * n_head + head * time, time, d,
                    scale, scratch);
  });
  return forward;
}

AttentionBackward backward_by_head(const cpu::AttentionKernels& kernels, const at::Tensor& gradient, const at::Tensor& queries,
                                   const at::Tensor& keys, const at::Tensor& values, const AttentionForward& forward,
                                   const std::vector<std::int32_t>& offsets, std::int64_t longest, float scale) {
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
                     group, time, d, scale, scratch);
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

double score_scale(const at::Tensor& q, const AttentionScope& scope) {
  return scope.scale / std::sqrt(static_cast<double>(q.size(3)));
}

// Whether some query of a row of `time` positions has a window that ends before the row does.
bool window_cuts(const AttentionScope& scope, std::int64_t time) { return scope.window && *scope.window + 1 < time; }

// Sliding windows, by products of blocks of queries with the keys that any of them sees. On any device, in float32.
constexpr std::int64_t kWindowQueries = 128;

// Calls body(first query, queries, first key, keys) for each block.
template <class Body>
void for_each_window(std::int64_t time, std::int64_t window, const Body& body) {
  for (std::int64_t query = 0; query < time; query += kWindowQueries) {
    const std::int64_t end = std::min(time, query + kWindowQueries), key = std::max<std::int64_t>(0, query - window);
    body(query, end - query, key, end - key);
  }
}

// Scores (B, NH, queries, keys) of one block, -Inf where a query does not see a key.
at::Tensor window_scores(const at::Tensor& q, const at::Tensor& k, std::int64_t first_query, std::int64_t first_key,
                         std::int64_t window, double scale) {
  const std::int64_t ahead = first_query - first_key;  // key j is query i's own where j = i + ahead
  const at::Tensor all = at::ones({q.size(2), k.size(2)}, q.options().dtype(at::kBool));
  const at::Tensor hidden = all.triu(ahead + 1).logical_or_(all.tril(ahead - window - 1));
  return at::matmul(q, k.transpose(2, 3)).mul_(scale).masked_fill_(hidden, -std::numeric_limits<double>::infinity());
}

AttentionForward windowed_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionScope& scope) {
  AttentionForward forward = make_forward(q);
  const at::Tensor queries = as_float(q).transpose(1, 2), keys = per_query_head(as_float(k), q.size(2));
  const at::Tensor values = per_query_head(as_float(v), q.size(2));
  for_each_window(q.size(1), *scope.window, [&](std::int64_t query, std::int64_t count, std::int64_t key, std::int64_t seen) {
    const at::Tensor scores = window_scores(queries.narrow(2, query, count), keys.narrow(2, key, seen), query, key,
                                            *scope.window, score_scale(q, scope));
    const at::Tensor logsumexp = at::logsumexp(scores, {3}, /*keepdim=*/true);
    const at::Tensor out = at::matmul(scores.sub(logsumexp).exp_(), values.narrow(2, key, seen));
    forward.out.narrow(1, query, count).copy_(out.transpose(1, 2));
    forward.logsumexp.narrow(2, query, count).copy_(logsumexp.squeeze(3));
  });
  return forward;
}

AttentionBackward windowed_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const AttentionForward& forward, const AttentionScope& scope) {
  const at::Tensor queries = as_float(q).transpose(1, 2), keys = per_query_head(as_float(k), q.size(2));
  const at::Tensor values = per_query_head(as_float(v), q.size(2)), d_outs = as_float(dout).transpose(1, 2);
  const at::Tensor deltas = d_outs.mul(as_float(forward.out).transpose(1, 2)).sum(3, /*keepdim=*/true);
  const at::TensorOptions options = q.options().dtype(at::kFloat);
  const at::Tensor dq = at::zeros(queries.sizes(), options), dk = at::zeros(keys.sizes(), options);
  const at::Tensor dv = at::zeros(keys.sizes(), options);
  const double scale = score_scale(q, scope);
  for_each_window(q.size(1), *scope.window, [&](std::int64_t query, std::int64_t count, std::int64_t key, std::int64_t seen) {
    const at::Tensor some = queries.narrow(2, query, count), d_out = d_outs.narrow(2, query, count);
    const at::Tensor visible = keys.narrow(2, key, seen);
    const at::Tensor weights = window_scores(some, visible, query, key, *scope.window, scale)
                                   .sub_(forward.logsumexp.narrow(2, query, count).unsqueeze(3))
                                   .exp_();
    dv.narrow(2, key, seen).add_(at::matmul(weights.transpose(2, 3), d_out));
    const at::Tensor d_scores = at::matmul(d_out, values.narrow(2, key, seen).transpose(2, 3))
                                    .sub_(deltas.narrow(2, query, count))
                                    .mul_(weights)
                                    .mul_(scale);
    dq.narrow(2, query, count).copy_(at::matmul(d_scores, visible));
    dk.narrow(2, key, seen).add_(at::matmul(d_scores.transpose(2, 3), some));
  });
  const at::ScalarType dtype = q.scalar_type();
  return {dq.transpose(1, 2).to(dtype), sum_groups(dk, k.size(2)).to(dtype), sum_groups(dv, v.size(2)).to(dtype)};
}

// Left open where it is the usual one.
std::optional<double> aten_scale(const at::Tensor& q, const AttentionScope& scope) {
  return scope.scale == 1.0 ? std::nullopt : std::optional(score_scale(q, scope));
}

// By ATen's kernels for CPUs, in float32 whatever the type; of the scope, window and scale count.
AttentionForward aten_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionScope& scope) {
  if (window_cuts(scope, q.size(1)) || q.is_cuda()) return windowed_forward(q, k, v, scope);
  const auto attend = [&] {
    return at::_scaled_dot_product_flash_attention_for_cpu(as_float(q).transpose(1, 2), per_query_head(as_float(k), q.size(2)),
                                                           per_query_head(as_float(v), q.size(2)), 0.0,
                                                           /*is_causal=*/true, /*attn_mask=*/{}, aten_scale(q, scope));
  };
  if (q.scalar_type() == at::kFloat) {
    auto [out, logsumexp] = attend();
    return {out.transpose(1, 2), logsumexp, {}, {}};
  }
  AttentionForward forward = make_forward(q);
  auto [out, logsumexp] = attend();
  forward.out.copy_(out.transpose(1, 2));
  forward.logsumexp.copy_(logsumexp);
  return forward;
}

AttentionBackward aten_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionForward& forward, const AttentionScope& scope) {
  if (window_cuts(scope, q.size(1)) || q.is_cuda()) return windowed_backward(dout, q, k, v, forward, scope);
  auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      as_float(dout).transpose(1, 2), as_float(q).transpose(1, 2), per_query_head(as_float(k), q.size(2)),
      per_query_head(as_float(v), q.size(2)), as_float(forward.out).transpose(1, 2), forward.logsumexp, 0.0,
      /*is_causal=*/true, /*attn_mask=*/{}, aten_scale(q, scope));
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

// On the device of q.
AttentionForward aten_forward_by_document(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const AttentionScope& scope) {
  const DocumentBounds& documents = *scope.documents;
  const std::int64_t n_head = q.size(2);
  AttentionForward forward = make_forward(q);
  const at::Tensor queries = one_row(q), keys = one_row(k), values = one_row(v), out = one_row(forward.out);
  for_each_document(documents, [&](const Document& document) {
    const AttentionForward part = aten_forward(document.of(queries), document.of(keys), document.of(values), scope);
    document.of(out).copy_(part.out);
    document.logsumexp_of(forward.logsumexp, n_head).copy_(part.logsumexp.view({1, n_head, document.length}));
  });
  return forward;
}

AttentionBackward aten_backward_by_document(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward, const AttentionScope& scope) {
  const DocumentBounds& documents = *scope.documents;
  const at::Tensor gradient = one_row(dout), queries = one_row(q), keys = one_row(k), values = one_row(v);
  const at::Tensor out = one_row(forward.out);
  AttentionBackward backward{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), q.options()),
                             at::empty(v.sizes(), q.options())};
  const at::Tensor dq = one_row(backward.dq), dk = one_row(backward.dk), dv = one_row(backward.dv);
  for_each_document(documents, [&](const Document& document) {
    const AttentionForward of_document{document.of(out), document.logsumexp_of(forward.logsumexp, q.size(2)), {}, {}};
    const AttentionBackward part = aten_backward(document.of(gradient), document.of(queries), document.of(keys),
                                                 document.of(values), of_document, scope);
    document.of(dq).copy_(part.dq);
    document.of(dk).copy_(part.dk);
    document.of(dv).copy_(part.dv);
  });
  return backward;
}

void check_scope(const at::Tensor& q, const AttentionScope& scope) {
  TORCH_CHECK(!scope.window || *scope.window >= 0, "attention: a window of ", scope.window.value_or(0), " positions");
  if (scope.documents == nullptr) return;
  TORCH_CHECK(scope.documents->offsets.size() >= 2 && scope.documents->offsets.back() == q.size(0) * q.size(1),
              "attention: the documents do not fit q ", q.sizes());
}

// Whether the window ends before the longest row or document does.
bool window_cuts(const at::Tensor& q, const AttentionScope& scope) {
  return window_cuts(scope, scope.documents != nullptr ? scope.documents->longest : q.size(1));
}

// Without a window that cuts nothing, so that it does not keep kernels without windows from being used.
AttentionScope effective(const at::Tensor& q, AttentionScope scope) {
  if (!window_cuts(q, scope)) scope.window.reset();
  return scope;
}

float kernel_scale(const at::Tensor& q, const AttentionScope& scope) { return static_cast<float>(score_scale(q, scope)); }

}  // namespace

AttentionForward causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionScope& wanted) {
  check_shapes(q, k, v);
  check_scope(q, wanted);
  const AttentionScope scope = effective(q, wanted);
  const DocumentBounds* documents = scope.documents;
  if (q.is_cuda() && cuda::attention_takes(q, scope)) return cuda::causal_attention(q, k, v, scope);
  if (const auto* kernels = scope.window ? nullptr : own_kernels(q)) {
    const float scale = kernel_scale(q, scope);
    return documents != nullptr ? forward_by_head(*kernels, q, k, v, documents->offsets, documents->longest, scale)
                                : forward_by_head(*kernels, q, k, v, row_offsets(q), q.size(1), scale);
  }
  return documents != nullptr ? aten_forward_by_document(q, k, v, scope) : aten_forward(q, k, v, scope);
}

AttentionBackward causal_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward,
                                            const AttentionScope& wanted) {
  check_shapes(q, k, v);
  check_scope(q, wanted);
  const AttentionScope scope = effective(q, wanted);
  const DocumentBounds* documents = scope.documents;
  if (q.is_cuda() && cuda::attention_takes(q, scope)) return cuda::causal_attention_backward(dout, q, k, v, forward, scope);
  if (const auto* kernels = scope.window ? nullptr : own_kernels(q)) {
    const float scale = kernel_scale(q, scope);
    return documents != nullptr
               ? backward_by_head(*kernels, dout, q, k, v, forward, documents->offsets, documents->longest, scale)
               : backward_by_head(*kernels, dout, q, k, v, forward, row_offsets(q), q.size(1), scale);
  }
  return documents != nullptr ? aten_backward_by_document(dout, q, k, v, forward, scope)
                              : aten_backward(dout, q, k, v, forward, scope);
}

namespace {

// Strides of a cache slab (B, Tk, NKV, D): rows of keys are dense, and k and v are laid out alike.
bool rows_dense(const at::Tensor& k, const at::Tensor& v) {
  return k.stride(3) == 1 && (k.size(2) == 1 || k.stride(2) == k.size(3)) && k.strides() == v.strides();
}

constexpr std::int64_t kManyQueries = 16;

// By the kernels for few rows, a slab's row being one block. More queries than these are shared out in pieces.
at::Tensor attend_by_head(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::int64_t* start,
                          const AttentionScope& scope) {
  const std::int64_t queries = q.size(1), n_head = q.size(2), d = q.size(3), group = n_head / k.size(2);
  const std::int64_t pieces = (queries + kQueriesAtOnce - 1) / kQueriesAtOnce;
  const auto block_size = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(k.size(1))));
  const float scale = kernel_scale(q, scope);
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
        attend_in_window(attend, typed<T>(dense) + first, n_head * d, std::min(kQueriesAtOnce, queries - query), paged,
                         typed<T>(out) + first, scratch.data(), start[row] + query + 1, d, scale, scope.window);
      }
    });
  });
  return out;
}

// Many queries in float32: the keys of a head are packed once for all of them.
at::Tensor attend_by_prompt(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::int64_t* start,
                            const AttentionScope& scope) {
  constexpr std::int64_t kLeast = 64;  // queries that are worth a packing of their own
  const cpu::PromptAttention& kernel = cpu::prompt_attention();
  const std::int64_t batch = q.size(0), queries = q.size(1), n_head = q.size(2), d = q.size(3), heads = k.size(2);
  const std::int64_t group = n_head / heads, wanted = (4 * num_threads() + batch * heads - 1) / (batch * heads);
  const std::int64_t share = (queries + wanted - 1) / wanted, length = std::max(kLeast, (share + 7) / 8 * 8);
  const std::int64_t pieces = (queries + length - 1) / length;
  const float scale = kernel_scale(q, scope);
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

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& start,
                            const AttentionScope& scope) {
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
    return many && !window_cuts(scope, keys) ? attend_by_prompt(q, k, v, starts, scope)
                                             : attend_by_head(q, k, v, starts, scope);
  }
  const auto positions = at::TensorOptions(at::kLong).device(q.device());
  const at::Tensor key = at::arange(keys, positions).view({1, 1, 1, keys});
  const at::Tensor last = start.to(q.device()).view({-1, 1, 1, 1}).add(at::arange(queries, positions).view({1, 1, queries, 1}));
  at::Tensor visible = key.le(last);
  if (scope.window) visible = visible.logical_and_(key.ge(last.sub(*scope.window)));
  return at::scaled_dot_product_attention(q.transpose(1, 2), per_query_head(k, q.size(2)), per_query_head(v, q.size(2)),
                                          visible,
                                          /*dropout_p=*/0.0, /*is_causal=*/false, aten_scale(q, scope))
      .transpose(1, 2);
}

}  // namespace nanochat::ops
