#include "ops/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <memory>
#include <vector>

#include "ops/cpu/attention_kernels.h"
#include "ops/cuda/backend.h"
#include "ops/dispatch.h"

namespace nanochat::ops {
namespace {

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, "attention: expected (B, T, heads, D), got ", q.sizes(),
              ", ", k.sizes(), ", ", v.sizes());
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

// One head of (B, T, heads, D).
cpu::HeadRows rows_of(const at::Tensor& x, std::int64_t row, std::int64_t head) {
  const auto* data = static_cast<const cpu::bf16*>(x.const_data_ptr());
  return {data + row * x.stride(0) + head * x.stride(2), x.stride(1)};
}
cpu::MutableHeadRows mutable_rows_of(const at::Tensor& x, std::int64_t row, std::int64_t head) {
  return {static_cast<cpu::bf16*>(x.data_ptr()) + row * x.stride(0) + head * x.stride(2), x.stride(1)};
}

float softmax_scale(std::int64_t d) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(d))); }

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

AttentionForward forward_by_head(const cpu::AttentionKernels& kernels, const at::Tensor& queries,
                                 const at::Tensor& keys, const at::Tensor& values) {
  const at::Tensor q = dense_heads(queries), k = dense_heads(keys), v = dense_heads(values);
  const std::int64_t time = q.size(1), n_head = q.size(2), d = q.size(3), group = n_head / k.size(2);
  AttentionForward forward{at::empty(q.sizes(), q.options()), at::empty({q.size(0), n_head, time}, at::kFloat), {}, {}};
  for_each_head(q.size(0) * n_head, kernels.forward_scratch(time, d), [&](std::int64_t i, void* scratch) {
    const std::int64_t row = i / n_head, head = i % n_head;
    kernels.forward(rows_of(q, row, head), rows_of(k, row, head / group), rows_of(v, row, head / group),
                    mutable_rows_of(forward.out, row, head), typed<float>(forward.logsumexp) + i * time, time, d,
                    softmax_scale(d), scratch);
  });
  return forward;
}

AttentionBackward backward_by_head(const cpu::AttentionKernels& kernels, const at::Tensor& gradient,
                                   const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                   const AttentionForward& forward) {
  // The heads of a group are found d numbers apart.
  const at::Tensor q = queries.contiguous(), dout = gradient.contiguous(), out = forward.out.contiguous();
  const at::Tensor k = dense_heads(keys), v = dense_heads(values);
  const std::int64_t time = q.size(1), d = q.size(3), n_kv_head = k.size(2), group = q.size(2) / n_kv_head;
  AttentionBackward backward{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), q.options()),
                             at::empty(v.sizes(), q.options())};
  for_each_head(q.size(0) * n_kv_head, kernels.backward_scratch(time, d), [&](std::int64_t i, void* scratch) {
    const std::int64_t row = i / n_kv_head, head = i % n_kv_head, first = head * group;
    kernels.backward(rows_of(q, row, first), rows_of(k, row, head), rows_of(v, row, head), rows_of(out, row, first),
                     rows_of(dout, row, first), typed<float>(forward.logsumexp) + (row * q.size(2) + first) * time,
                     mutable_rows_of(backward.dq, row, first), mutable_rows_of(backward.dk, row, head),
                     mutable_rows_of(backward.dv, row, head), group, time, d, softmax_scale(d), scratch);
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

}  // namespace

AttentionForward causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  check_shapes(q, k, v);
  if (q.is_cuda()) return cuda::causal_attention(q, k, v);
  if (const cpu::AttentionKernels* kernels = own_kernels(q)) return forward_by_head(*kernels, q, k, v);
  auto [out, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
      as_float(q).transpose(1, 2), per_query_head(as_float(k), q.size(2)), per_query_head(as_float(v), q.size(2)), 0.0,
      /*is_causal=*/true);
  return {out.transpose(1, 2).to(q.scalar_type()), logsumexp, {}, {}};
}

AttentionBackward causal_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward) {
  check_shapes(q, k, v);
  if (q.is_cuda()) return cuda::causal_attention_backward(dout, q, k, v, forward);
  if (const cpu::AttentionKernels* kernels = own_kernels(q)) {
    return backward_by_head(*kernels, dout, q, k, v, forward);
  }
  auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      as_float(dout).transpose(1, 2), as_float(q).transpose(1, 2), per_query_head(as_float(k), q.size(2)),
      per_query_head(as_float(v), q.size(2)), as_float(forward.out).transpose(1, 2), forward.logsumexp, 0.0,
      /*is_causal=*/true);
  const at::ScalarType dtype = q.scalar_type();
  return {dq.transpose(1, 2).to(dtype), sum_groups(dk, k.size(2)).to(dtype), sum_groups(dv, v.size(2)).to(dtype)};
}

namespace {

// Up to this many new positions a row, each query reads its keys by itself; above, matrix products pay.
constexpr std::int64_t kFewQueries = 4;

// Strides of a cache slab (B, Tk, NKV, D): rows of keys are dense, and k and v are laid out alike.
bool rows_dense(const at::Tensor& k, const at::Tensor& v) {
  return k.stride(3) == 1 && (k.size(2) == 1 || k.stride(2) == k.size(3)) && k.strides() == v.strides();
}

at::Tensor attend_by_row(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::int64_t* start) {
  const std::int64_t queries = q.size(1), n_head = q.size(2), d = q.size(3), group = n_head / k.size(2);
  const float scale = softmax_scale(d);
  const at::Tensor dense = q.contiguous();
  at::Tensor out = at::empty(q.sizes(), q.options());
  visit_dtype(q, "cached_attention", [&]<class T>(T) {
    const auto attend = cpu::kernels<T>().attend;
    const T* keys = static_cast<const T*>(k.const_data_ptr());
    const T* values = static_cast<const T*>(v.const_data_ptr());
    parallel_for(q.size(0) * queries * n_head, row_grain(k.size(1) * d), [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(k.size(1) + d));
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t head = i % n_head, query = i / n_head % queries, row = i / (n_head * queries);
        const std::int64_t offset = row * k.stride(0) + head / group * d;
        attend(typed<T>(dense) + i * d, keys + offset, values + offset, typed<T>(out) + i * d, scratch.data(),
               start[row] + query + 1, k.stride(1), d, scale);
      }
    });
  });
  return out;
}

}  // namespace

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& start) {
  check_shapes(q, k, v);
  TORCH_CHECK(start.scalar_type() == at::kLong && start.is_contiguous() && start.numel() == q.size(0),
              "cached_attention: start ", start.sizes(), " ", start.scalar_type(), " does not fit q ", q.sizes());
  const std::int64_t queries = q.size(1), keys = k.size(1);
  const std::int64_t* starts = start.const_data_ptr<std::int64_t>();
  for (std::int64_t b = 0; b < q.size(0); ++b) {
    TORCH_CHECK(starts[b] >= 0 && starts[b] + queries <= keys, "cached_attention: row ", b, " needs ",
                starts[b] + queries, " keys, but there are ", keys);
  }
  if (q.is_cpu() && queries <= kFewQueries && rows_dense(k, v)) return attend_by_row(q, k, v, starts);
  const auto positions = at::TensorOptions(at::kLong).device(q.device());
  const at::Tensor key = at::arange(keys, positions).view({1, 1, 1, keys});
  const at::Tensor last =
      start.to(q.device()).view({-1, 1, 1, 1}).add(at::arange(queries, positions).view({1, 1, queries, 1}));
  return at::scaled_dot_product_attention(q.transpose(1, 2), per_query_head(k, q.size(2)), per_query_head(v, q.size(2)),
                                          key.le(last))
      .transpose(1, 2);
}

}  // namespace nanochat::ops
