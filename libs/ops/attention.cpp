#include "ops/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <vector>

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
  auto [out, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
      as_float(q).transpose(1, 2), per_query_head(as_float(k), q.size(2)), per_query_head(as_float(v), q.size(2)), 0.0,
      /*is_causal=*/true);
  return {out.transpose(1, 2).to(q.scalar_type()), logsumexp};
}

AttentionBackward causal_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward) {
  check_shapes(q, k, v);
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
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
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
  if (queries <= kFewQueries && rows_dense(k, v)) return attend_by_row(q, k, v, starts);
  const at::Tensor key = at::arange(keys, at::kLong).view({1, 1, 1, keys});
  const at::Tensor last = start.view({-1, 1, 1, 1}).add(at::arange(queries, at::kLong).view({1, 1, queries, 1}));
  return at::scaled_dot_product_attention(q.transpose(1, 2), per_query_head(k, q.size(2)), per_query_head(v, q.size(2)),
                                          key.le(last))
      .transpose(1, 2);
}

}  // namespace nanochat::ops
