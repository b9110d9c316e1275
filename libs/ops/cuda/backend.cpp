#include "ops/cuda/backend.h"

#include <ATen/Context.h>
#include <ATen/ops/_efficient_attention_backward.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "ops/cuda/cudnn_attention.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/tensors.h"
#include "ops/document_bounds.h"

namespace nanochat::ops::cuda {
namespace {

RopeShape shape_of(const at::Tensor& q, const at::Tensor& k) { return {q.size(0), q.size(1), q.size(2), k.size(2), q.size(3)}; }

// (B, T, heads, D) as LibTorch's attention takes it, each key/value head standing for its group of query heads.
at::Tensor by_head(const at::Tensor& x, std::int64_t n_head) {
  const std::int64_t group = n_head / x.size(2);
  return (group == 1 ? x : x.repeat_interleave(group, 2)).transpose(1, 2);
}

// The reverse for gradients: sums the heads of a group.
at::Tensor by_time(const at::Tensor& dx, std::int64_t n_kv_head) {
  const at::Tensor x = dx.transpose(1, 2);
  const std::int64_t group = x.size(2) / n_kv_head;
  return group == 1 ? x : x.unflatten(2, {n_kv_head, group}).sum(3);
}

// cuDNN's kernels are the fastest on Hopper and later, and take heads in multiples of 8 up to 128. Their backward pass adds up in
// any order, as LibTorch calls it; FlashAttention's has a fixed one where LibTorch is asked for it.
bool prefers_cudnn(const at::Tensor& q) {
  static const std::vector<int> majors = [] {
    std::vector<int> found(static_cast<std::size_t>(c10::cuda::device_count()));
    for (std::size_t i = 0; i < found.size(); ++i) {
      cudaDeviceGetAttribute(&found[i], cudaDevAttrComputeCapabilityMajor, static_cast<int>(i));
    }
    return found;
  }();
  return majors.at(static_cast<std::size_t>(q.device().index())) >= 9 && q.size(3) % 8 == 0 && q.size(3) <= 128 &&
         !at::globalContext().deterministicAlgorithms();
}

enum class AttentionKind { kCudnn, kFlash, kEfficient };
AttentionKind kind_for(const at::Tensor& q) {
  if (q.scalar_type() == at::kFloat) return AttentionKind::kEfficient;
  return prefers_cudnn(q) ? AttentionKind::kCudnn : AttentionKind::kFlash;
}

// What scores are multiplied by.
double score_scale(const at::Tensor& q, const AttentionScope& scope) {
  return scope.scale / std::sqrt(static_cast<double>(q.size(3)));
}

MatrixPointers pointers(const MatrixList& list, std::size_t first, std::size_t count) {
  MatrixPointers result = {};
  for (std::size_t i = 0; i < count; ++i) {
    result.value[i] = device_data<float>(list.value[first + i]);
    result.gradient[i] = device_data<float>(list.gradient[first + i]);
    result.momentum[i] = device_data<float>(list.momentum[first + i]);
    const at::Tensor& compute = list.compute[first + i];
    result.compute[i] = compute.scalar_type() == at::kBFloat16 ? compute.data_ptr() : nullptr;
  }
  return result;
}

// Calls body(first, count) for groups of matrices that fit one launch.
template <class Body>
void for_each_launch(const MatrixList& list, const Body& body) {
  for (std::size_t first = 0; first < list.value.size(); first += kMatricesPerLaunch) {
    body(first, std::min<std::size_t>(kMatricesPerLaunch, list.value.size() - first));
  }
}

// Scratch of a kernel, on the device of `like`.
at::Tensor floats(std::int64_t count, const at::Tensor& like) { return at::empty({count}, like.options().dtype(at::kFloat)); }

SortedTokens sorted_tokens(const TokenOrder& order) {
  return {device_data<std::int32_t>(order.ids), device_data<std::int64_t>(order.positions), order.ids.numel()};
}

Smear smear_of(const at::Tensor& x, const at::Tensor& previous, const at::Tensor& before, const at::Tensor& gate,
               const at::Tensor& lambda) {
  return {data(x, x),    optional_data(previous, x), device_data<std::int32_t>(before),
          data(gate, x), device_data<float>(lambda), static_cast<std::int32_t>(gate.size(1))};
}

ValueEmbedding value_embedding_of(const at::Tensor& v, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table) {
  return {.h = data(h, h),
          .gate = data(gate, h),
          .table = table.const_data_ptr(),
          .table_type = element_of(table),
          .tokens = v.size(0),
          .heads = v.size(1),
          .d = v.size(2),
          .width = h.size(1),
          .table_rows = table.size(0),
          .channels = static_cast<std::int32_t>(gate.size(1))};
}

struct GateShape {
  std::int64_t tokens, heads, channels;
};
void add_gate_gradient(const at::Tensor& slopes, const at::Tensor& x, const at::Tensor& gate, const at::Tensor& dx,
                       const at::Tensor& d_gate, const GateShape& shape, Stream stream) {
  const at::Tensor partials = floats(gate_gradient_partials(shape.heads, shape.channels), x);
  gate_gradient(element_of(x), slopes.data_ptr<float>(), x.const_data_ptr(), data(gate, x), optional_data(dx, x),
                device_data<float>(d_gate), partials.data_ptr<float>(), shape.tokens, shape.heads, shape.channels, x.size(1),
                stream);
}

}  // namespace

void rms_norm(const at::Tensor& x, at::Tensor& y, at::Tensor& rstd, double eps) {
  const On stream(x);
  const std::int64_t n = x.size(-1);
  cuda::rms_norm(element_of(x), x.const_data_ptr(), element_of(x), nullptr, data(y, x), optional_floats(rstd), x.numel() / n, n,
                 static_cast<float>(eps), stream);
}

void add_rms_norm(at::Tensor& residual, const at::Tensor& branch, at::Tensor& y, at::Tensor& rstd, double eps) {
  const On stream(residual);
  const std::int64_t n = residual.size(-1);
  cuda::rms_norm(element_of(y), data(branch, y), element_of(residual), residual.data_ptr(), y.data_ptr(), optional_floats(rstd),
                 residual.numel() / n, n, static_cast<float>(eps), stream);
}

void rms_norm_backward(const at::Tensor& dy, const at::Tensor& y, const at::Tensor& rstd, at::Tensor& dx, bool accumulate) {
  const On stream(y);
  const std::int64_t n = y.size(-1);
  cuda::rms_norm_backward(element_of(y), data(dy, y), y.const_data_ptr(), device_data<float>(rstd), data(dx, y), accumulate,
                          y.numel() / n, n, stream);
}

void rope_qk_norm(const at::Tensor& qkv, const RopeTable& table, const at::Tensor& start, at::Tensor& q, at::Tensor& k,
                  at::Tensor& rstd, double eps) {
  const On stream(qkv);
  const at::Tensor starts = start.defined() ? start.to(qkv.device(), /*non_blocking=*/true) : start;
  cuda::rope_qk_norm(element_of(qkv), qkv.const_data_ptr(), device_data<float>(table.cos), device_data<float>(table.sin),
                     starts.defined() ? device_data<std::int64_t>(starts) : nullptr, data(q, qkv), data(k, qkv),
                     optional_floats(rstd), shape_of(q, k), static_cast<float>(eps), stream);
}

void rope_qk_norm_backward(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& rstd, const RopeTable& table, at::Tensor& dqkv) {
  const On stream(q);
  cuda::rope_qk_norm_backward(element_of(q), data(dq, q), data(dk, q), data(dv, q), q.const_data_ptr(), data(k, q),
                              device_data<float>(rstd), device_data<float>(table.cos), device_data<float>(table.sin),
                              data(dqkv, q), shape_of(q, k), stream);
}

void relu_squared(const at::Tensor& x, at::Tensor& y) {
  const On stream(x);
  cuda::relu_squared(element_of(x), x.const_data_ptr(), data(y, x), x.numel(), stream);
}

void relu_squared_backward(const at::Tensor& dy, const at::Tensor& y, at::Tensor& dx) {
  const On stream(y);
  cuda::relu_squared_backward(element_of(y), data(dy, y), y.const_data_ptr(), data(dx, y), y.numel(), stream);
}

void embedding(const at::Tensor& table, const at::Tensor& ids, at::Tensor& y) {
  const On stream(table);
  cuda::embedding(element_of(table), table.const_data_ptr(), table.size(0), device_data<std::int32_t>(ids), ids.numel(),
                  data(y, table), table.size(1), stream);
}

void embedding_rms_norm(const at::Tensor& table, const at::Tensor& inputs, const at::Tensor& drawn, at::Tensor& ids,
                        at::Tensor& y, double eps) {
  const On stream(table);
  cuda::embedding_rms_norm(element_of(table), table.const_data_ptr(), table.size(0), device_data<std::int32_t>(inputs),
                           inputs.numel(), device_data<std::int32_t>(drawn), drawn.numel(), device_data<std::int32_t>(ids),
                           data(y, table), table.size(1), static_cast<float>(eps), stream);
}

TokenOrder order_tokens(const at::Tensor& ids) {
  const On stream(ids);
  const auto [sorted, positions] = at::sort(ids.view({-1}), /*stable=*/true, /*dim=*/0, /*descending=*/false);
  return {sorted, positions};
}

void embedding_backward(const at::Tensor& dy, const TokenOrder& order, at::Tensor& dtable) {
  const On stream(dy);
  const SortedTokens tokens = sorted_tokens(order);
  const at::Tensor partials = floats(table_gradient_partials(tokens.count, dtable.size(1)), dy);
  cuda::embedding_backward(element_of(dy), dy.const_data_ptr(), tokens, device_data<float>(dtable), dtable.size(0),
                           dtable.size(1), partials.data_ptr<float>(), stream);
}

void residual_mix(at::Tensor& stream, const at::Tensor& branch, const at::Tensor& x0, const at::Tensor& a, const at::Tensor& b,
                  at::Tensor& before, at::Tensor& y, at::Tensor& rstd, double eps) {
  const On stream_of_work(stream);
  cuda::residual_mix(element_of(y), element_of(stream), stream.data_ptr(), optional_data(branch, y), data(x0, y),
                     device_data<float>(a), device_data<float>(b), optional_data(before, y), y.data_ptr(),
                     optional_floats(rstd), stream.size(0), stream.size(1), static_cast<float>(eps), stream_of_work);
}

void residual_mix_backward(const NormGradient& norm, at::Tensor& gradient, const at::Tensor& before, const at::Tensor& x0,
                           const at::Tensor& a, const at::Tensor& b, at::Tensor& dx0, bool accumulate, at::Tensor d_a,
                           at::Tensor d_b) {
  const On stream(gradient);
  const std::int64_t rows = gradient.size(0), n = gradient.size(1);
  const at::Tensor partials = floats(stream_partials(rows), gradient);
  cuda::residual_mix_backward(element_of(gradient),
                              {.dy = optional_data(norm.dy, gradient),
                               .y = optional_data(norm.y, gradient),
                               .rstd = optional_floats(norm.rstd),
                               .gradient = gradient.data_ptr(),
                               .before = optional_data(before, gradient),
                               .x0 = data(x0, gradient),
                               .a = device_data<float>(a),
                               .b = device_data<float>(b),
                               .dx0 = data(dx0, gradient),
                               .accumulate = accumulate,
                               .d_a = optional_floats(d_a),
                               .d_b = device_data<float>(d_b),
                               .partials = partials.data_ptr<float>()},
                              rows, n, stream);
}

void smear(const at::Tensor& x, const at::Tensor& previous, const at::Tensor& before, const at::Tensor& gate,
           const at::Tensor& lambda, at::Tensor& y, at::Tensor& s) {
  const On stream(x);
  cuda::smear(element_of(x), smear_of(x, previous, before, gate, lambda), data(y, x), optional_floats(s), x.size(0), x.size(1),
              stream);
}

void smear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& before, const at::Tensor& gate,
                    const at::Tensor& lambda, const at::Tensor& s, at::Tensor& dx, at::Tensor d_gate, at::Tensor d_lambda) {
  const On stream(x);
  const std::int64_t rows = x.size(0), n = x.size(1), channels = gate.size(1);
  const at::Tensor slopes = floats(rows, x), partials = floats(stream_partials(rows), x);
  cuda::smear_backward(element_of(x), smear_of(x, at::Tensor(), before, gate, lambda), data(dy, x), device_data<float>(s),
                       data(dx, x), slopes.data_ptr<float>(), device_data<float>(d_lambda), partials.data_ptr<float>(), rows, n,
                       stream);
  add_gate_gradient(slopes, x, gate, at::Tensor(), d_gate, {rows, 1, channels}, stream);
}

void add_value_embedding(at::Tensor v, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                         const at::Tensor& ids, at::Tensor& g) {
  const On stream(v);
  cuda::add_value_embedding(element_of(h), value_embedding_of(v, h, gate, table), v.data_ptr(), v.stride(0),
                            device_data<std::int32_t>(ids), optional_floats(g), stream);
}

void add_value_embedding_backward(const at::Tensor& dv, const at::Tensor& h, const at::Tensor& gate, const at::Tensor& table,
                                  const TokenOrder& order, const at::Tensor& g, at::Tensor& dh, at::Tensor& d_gate,
                                  at::Tensor& d_table) {
  const On stream(dv);
  const SortedTokens tokens = sorted_tokens(order);
  const at::Tensor slopes = floats(g.numel(), dv);
  const std::int64_t width = table.size(1);
  const at::Tensor partials = floats(d_table.defined() ? table_gradient_partials(tokens.count, width) : 0, dv);
  cuda::value_embedding_slopes(element_of(h), value_embedding_of(dv, h, gate, table), dv.const_data_ptr(), dv.stride(0), tokens,
                               device_data<float>(g), slopes.data_ptr<float>(), optional_floats(d_table),
                               partials.data_ptr<float>(), stream);
  add_gate_gradient(slopes, h, gate, dh, d_gate, {dv.size(0), dv.size(1), gate.size(1)}, stream);
}

void softcap_cross_entropy(at::Tensor& z, const at::Tensor& targets, const at::Tensor& scale, at::Tensor& losses,
                           std::int64_t vocab, double softcap) {
  const On stream(z);
  cuda::softcap_cross_entropy(element_of(z), z.data_ptr(), device_data<std::int32_t>(targets), optional_floats(scale),
                              device_data<float>(losses), z.size(0), vocab, z.size(1), static_cast<float>(softcap), stream);
}

at::Tensor softcap(const at::Tensor& z, std::int64_t vocab, double softcap) {
  at::Tensor out = at::empty({z.size(0), vocab}, z.options().dtype(at::kFloat));
  cuda::softcap(z, softcap, out);
  return out;
}

void softcap(const at::Tensor& z, double softcap, at::Tensor& out, const at::Tensor& extremes) {
  const On stream(z);
  cuda::softcap(element_of(z), z.const_data_ptr(), device_data<float>(out),
                extremes.defined() ? reinterpret_cast<LogitExtremes*>(device_data<std::int64_t>(extremes)) : nullptr, z.size(0),
                out.size(1), z.size(1), static_cast<float>(softcap), stream);
}

namespace {

// Every row is a document, and there is no window.
AttentionForward row_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  const at::Tensor query = q.transpose(1, 2), key = by_head(k, q.size(2)), value = by_head(v, q.size(2));
  AttentionForward forward;
  if (kind_for(q) == AttentionKind::kCudnn) {
    auto result = at::_scaled_dot_product_cudnn_attention(query, key, value, std::nullopt, /*compute_log_sumexp=*/true, 0.0,
                                                          /*is_causal=*/true, /*return_debug_mask=*/false, scale);
    forward = {std::get<0>(result).transpose(1, 2), std::get<1>(result), std::get<6>(result), std::get<7>(result)};
  } else if (kind_for(q) == AttentionKind::kFlash) {
    auto result = at::_scaled_dot_product_flash_attention(query, key, value, 0.0, /*is_causal=*/true,
                                                          /*return_debug_mask=*/false, scale);
    forward = {std::get<0>(result).transpose(1, 2), std::get<1>(result), std::get<6>(result), std::get<7>(result)};
  } else {
    auto result = at::_scaled_dot_product_efficient_attention(query, key, value, std::nullopt,
                                                              /*compute_log_sumexp=*/true, 0.0, /*is_causal=*/true, scale);
    forward = {std::get<0>(result).transpose(1, 2), std::get<1>(result), std::get<2>(result), std::get<3>(result)};
  }
  return forward;
}

AttentionBackward row_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                         const AttentionForward& forward, double scale) {
  const at::Tensor query = q.transpose(1, 2), key = by_head(k, q.size(2)), value = by_head(v, q.size(2));
  const at::Tensor gradient = dout.transpose(1, 2), out = forward.out.transpose(1, 2);
  const std::int64_t length = q.size(1), n_kv_head = k.size(2);
  at::Tensor dq, dk, dv;
  if (kind_for(q) == AttentionKind::kCudnn) {
    std::tie(dq, dk, dv) = at::_scaled_dot_product_cudnn_attention_backward(gradient, query, key, value, out, forward.logsumexp,
                                                                            forward.philox_seed, forward.philox_offset,
                                                                            at::Tensor(), at::Tensor(), at::Tensor(), length,
                                                                            length, 0.0, /*is_causal=*/true, scale);
  } else if (kind_for(q) == AttentionKind::kFlash) {
    std::tie(dq, dk, dv) = at::_scaled_dot_product_flash_attention_backward(gradient, query, key, value, out, forward.logsumexp,
                                                                            at::Tensor(), at::Tensor(), length, length, 0.0,
                                                                            /*is_causal=*/true, forward.philox_seed,
                                                                            forward.philox_offset, scale);
  } else {
    at::Tensor none;
    std::tie(dq, dk, dv, none) = at::_scaled_dot_product_efficient_attention_backward(
        gradient, query, key, value, at::Tensor(), out, forward.logsumexp, forward.philox_seed, forward.philox_offset, 0.0,
        {true, true, true, false}, /*is_causal=*/true, scale);
  }
  return {dq.transpose(1, 2), by_time(dk, n_kv_head), by_time(dv, n_kv_head)};
}

// (B, T, heads, D) -> (B * T, heads, D), a view: the variable-length kernels want the positions of all documents in a row.
at::Tensor all_positions(const at::Tensor& x) { return x.flatten(0, 1); }

// The same with a batch of 1 in front, each key/value head standing for its group of query heads: memory-efficient
// attention knows no groups.
at::Tensor one_row(const at::Tensor& x, std::int64_t n_head) {
  const std::int64_t group = n_head / x.size(2);
  return (group == 1 ? x : x.repeat_interleave(group, 2)).flatten(0, 1).unsqueeze(0);
}

constexpr std::int64_t kCausalFromTopLeft = 1;  // sdp::CustomMaskType

// FlashAttention over rows or documents. Its kernels know grouped heads, and skip the keys outside a window: a left window of
// w lets a query see w keys besides its own, as in AttentionScope.
AttentionForward flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionScope& scope) {
  const auto run = [&](const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       const std::optional<at::Tensor>& offsets, std::int64_t longest) {
    return at::_flash_attention_forward(query, key, value, offsets, offsets, longest, longest, 0.0, /*is_causal=*/true,
                                        /*return_debug_mask=*/false, score_scale(q, scope), scope.window);
  };
  auto [out, logsumexp, seed, offset, unused] = scope.documents != nullptr
                                                    ? run(all_positions(q), all_positions(k), all_positions(v),
                                                          scope.documents->device_offsets, scope.documents->longest)
                                                    : run(q, k, v, std::nullopt, q.size(1));
  return {out.view(q.sizes()), logsumexp, seed, offset};
}

AttentionBackward flash_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const AttentionForward& forward, const AttentionScope& scope) {
  const auto run = [&](const at::Tensor& gradient, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       const at::Tensor& out, const at::Tensor& offsets, std::int64_t longest) {
    return at::_flash_attention_backward(gradient, query, key, value, out, forward.logsumexp, offsets, offsets, longest,
                                         longest, 0.0, /*is_causal=*/true, forward.philox_seed, forward.philox_offset,
                                         score_scale(q, scope), scope.window);
  };
  auto [dq, dk, dv] = scope.documents != nullptr
                          ? run(all_positions(dout), all_positions(q), all_positions(k), all_positions(v),
                                all_positions(forward.out), scope.documents->device_offsets, scope.documents->longest)
                          : run(dout, q, k, v, forward.out, at::Tensor(), q.size(1));
  return {dq.view(q.sizes()), dk.view(k.sizes()), dv.view(k.sizes())};
}

// Documents in float32, without a window.
AttentionForward efficient_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const AttentionScope& scope) {
  const at::Tensor& offsets = scope.documents->device_offsets;
  const std::int64_t longest = scope.documents->longest, n_head = q.size(2);
  auto result = at::_efficient_attention_forward(one_row(q, n_head), one_row(k, n_head), one_row(v, n_head),
                                                 /*bias=*/std::nullopt, offsets, offsets, longest, longest, 0.0,
                                                 kCausalFromTopLeft, /*compute_log_sumexp=*/true, score_scale(q, scope));
  return {std::get<0>(result).view(q.sizes()), std::get<1>(result), std::get<2>(result), std::get<3>(result)};
}

AttentionBackward efficient_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                               const at::Tensor& v, const AttentionForward& forward,
                                               const AttentionScope& scope) {
  const at::Tensor& offsets = scope.documents->device_offsets;
  const std::int64_t longest = scope.documents->longest, n_head = q.size(2);
  auto [dq, dk, dv, none] = at::_efficient_attention_backward(
      one_row(dout, n_head), one_row(q, n_head), one_row(k, n_head), one_row(v, n_head), /*bias=*/std::nullopt,
      one_row(forward.out, n_head), offsets, offsets, longest, longest, forward.logsumexp, 0.0, forward.philox_seed,
      forward.philox_offset, kCausalFromTopLeft, /*bias_requires_grad=*/false, score_scale(q, scope));
  const auto sum_groups = [&](const at::Tensor& dx) {
    const std::int64_t group = n_head / k.size(2);
    return (group == 1 ? dx : dx.unflatten(2, {k.size(2), group}).sum(3)).reshape(k.sizes());
  };
  return {dq.reshape(q.sizes()), sum_groups(dk), sum_groups(dv)};
}

}  // namespace

bool attention_takes(const at::Tensor& q, const AttentionScope& scope) {
  constexpr std::int64_t kHeadMultiple = 8, kWidestHead = 256;  // of FlashAttention
  return !scope.window || (q.scalar_type() != at::kFloat && q.size(3) % kHeadMultiple == 0 && q.size(3) <= kWidestHead);
}

namespace {

bool uses_cudnn_window(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionScope& scope) {
  return scope.window && scope.documents == nullptr && q.scalar_type() == at::kBFloat16 && prefers_cudnn(q) &&
         cudnn_takes_window(q, k, v, *scope.window, score_scale(q, scope));
}

}  // namespace

AttentionForward causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionScope& scope) {
  const On stream(q);
  if (uses_cudnn_window(q, k, v, scope)) return cudnn_window_attention(q, k, v, *scope.window, score_scale(q, scope));
  if (scope.documents == nullptr && !scope.window) return row_attention(q, k, v, score_scale(q, scope));
  return q.scalar_type() == at::kFloat ? efficient_attention(q, k, v, scope) : flash_attention(q, k, v, scope);
}

AttentionBackward causal_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v, const AttentionForward& forward, const AttentionScope& scope) {
  const On stream(q);
  if (uses_cudnn_window(q, k, v, scope)) {
    return cudnn_window_attention_backward(dout, q, k, v, forward, *scope.window, score_scale(q, scope));
  }
  if (scope.documents == nullptr && !scope.window) {
    return row_attention_backward(dout, q, k, v, forward, score_scale(q, scope));
  }
  return q.scalar_type() == at::kFloat ? efficient_attention_backward(dout, q, k, v, forward, scope)
                                       : flash_attention_backward(dout, q, k, v, forward, scope);
}

void adamw(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
           at::Tensor& compute, const AdamWArguments& a) {
  const On stream(value);
  const AdamWStep step = {static_cast<float>(a.grad_scale),    static_cast<float>(a.beta1),        static_cast<float>(a.beta2),
                          static_cast<float>(a.learning_rate), static_cast<float>(a.weight_decay), static_cast<float>(a.eps),
                          static_cast<float>(a.bias1),         static_cast<float>(a.sqrt_bias2)};
  cuda::adamw(device_data<float>(value), device_data<float>(gradient), device_data<float>(first_moment),
              device_data<float>(second_moment), compute.scalar_type() == at::kBFloat16 ? compute.data_ptr() : nullptr,
              value.numel(), step, stream);
}

at::Tensor muon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum,
                           bool nesterov) {
  const at::Tensor& first_value = matrices.value.front();
  const On stream(first_value);
  const auto count = static_cast<std::int64_t>(matrices.value.size());
  const std::int64_t size = first_value.numel();
  at::Tensor batch = at::empty({count, first_value.size(0), first_value.size(1)}, first_value.options().dtype(dtype));
  const at::Tensor partial = at::empty({count, kBlocksPerMatrix}, first_value.options());
  for_each_launch(matrices, [&](std::size_t first, std::size_t n) {
    const auto offset = static_cast<std::int64_t>(first);
    at::Tensor part = batch.narrow(0, offset, static_cast<std::int64_t>(n));
    float* sums = partial.data_ptr<float>() + offset * kBlocksPerMatrix;
    cuda::muon_momentum(element_of(part), pointers(matrices, first, n), static_cast<int>(n), size, part.data_ptr(), sums,
                        static_cast<float>(grad_scale), static_cast<float>(momentum), nesterov, stream);
    cuda::muon_normalise(element_of(part), part.data_ptr(), sums, static_cast<int>(n), size, stream);
  });
  return batch;
}

void muon_apply(const MatrixList& matrices, const at::Tensor& update, double rate) {
  const On stream(update);
  for_each_launch(matrices, [&](std::size_t first, std::size_t n) {
    const at::Tensor part = update.narrow(0, static_cast<std::int64_t>(first), static_cast<std::int64_t>(n));
    cuda::muon_apply(element_of(part), pointers(matrices, first, n), part.const_data_ptr(), static_cast<int>(n),
                     update[0].numel(), static_cast<float>(rate), stream);
  });
}

at::Tensor normuon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum) {
  const at::Tensor& like = matrices.value.front();
  const On stream(like);
  const auto count = static_cast<std::int64_t>(matrices.value.size());
  const MatrixShape shape = {like.size(0), like.size(1)};
  at::Tensor batch = at::empty({count, shape.rows, shape.columns}, like.options().dtype(dtype));
  const at::Tensor squares = floats(2 * count * shape.rows, like), totals = floats(2 * count, like);
  for_each_launch(matrices, [&](std::size_t first, std::size_t n) {
    const at::Tensor part = batch.narrow(0, static_cast<std::int64_t>(first), static_cast<std::int64_t>(n));
    cuda::normuon_directions(element_of(part), pointers(matrices, first, n), static_cast<int>(n), shape, part.data_ptr(),
                             squares.data_ptr<float>() + 2 * static_cast<std::int64_t>(first) * shape.rows,
                             totals.data_ptr<float>() + 2 * static_cast<std::int64_t>(first), static_cast<float>(grad_scale),
                             static_cast<float>(momentum), stream);
  });
  return batch;
}

void normuon_apply(const MatrixList& matrices, std::vector<at::Tensor>& second_moments, const at::Tensor& update,
                   const NorMuonArguments& arguments) {
  const On stream(update);
  const MatrixShape shape = {update.size(1), update.size(2)};
  const std::int64_t lines = std::max(shape.rows, shape.columns), count = update.size(0);
  const at::Tensor partials = floats(count * normuon_parts(shape) * lines, update), factors = floats(count * lines, update);
  const NorMuonStep step = {static_cast<float>(arguments.rate), static_cast<float>(arguments.weight_decay),
                            static_cast<float>(arguments.beta2)};
  for_each_launch(matrices, [&](std::size_t first, std::size_t n) {
    const auto offset = static_cast<std::int64_t>(first);
    const at::Tensor part = update.narrow(0, offset, static_cast<std::int64_t>(n));
    NorMuonMoments moments = {};
    for (std::size_t i = 0; i < n; ++i) moments.moment[i] = device_data<float>(second_moments[first + i]);
    cuda::normuon_apply(element_of(part), pointers(matrices, first, n), moments, static_cast<int>(n), shape,
                        part.const_data_ptr(), partials.data_ptr<float>() + offset * normuon_parts(shape) * lines,
                        factors.data_ptr<float>() + offset * lines, step, stream);
  });
}

at::Tensor sum_of_squares(const std::vector<at::Tensor>& tensors) {
  const On stream(tensors.front());
  const auto blocks_of = [](const at::Tensor& x) { return (x.numel() + kRunOfSquares - 1) / kRunOfSquares; };
  std::int64_t blocks = 0;
  for (const at::Tensor& x : tensors) blocks += blocks_of(x);
  const at::Tensor partial = at::empty({blocks}, tensors.front().options().dtype(at::kDouble));
  std::int64_t done = 0;
  for (std::size_t first = 0; first < tensors.size(); first += kTensorsPerLaunch) {
    TensorList list = {};
    const std::size_t count = std::min<std::size_t>(kTensorsPerLaunch, tensors.size() - first);
    std::int64_t launched = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const at::Tensor& x = tensors[first + i];
      list.x[i] = device_data<float>(x);
      list.size[i] = x.numel();
      list.first_block[i] = static_cast<unsigned>(launched);
      launched += blocks_of(x);
    }
    cuda::sum_of_squares(list, static_cast<int>(count), static_cast<unsigned>(launched), partial.data_ptr<double>() + done,
                         stream);
    done += launched;
  }
  return partial.sum();
}

bool built() { return true; }

int device_count() { return c10::cuda::device_count(); }

std::int64_t multiprocessor_count(int device) {
  int count = 0;
  TORCH_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess,
              "cannot read the number of multiprocessors of GPU ", device);
  return count;
}

namespace {

// Of limit_memory(), by device. Set before anything else is done with the device.
std::map<int, std::int64_t>& memory_limits() {
  static std::map<int, std::int64_t> limits;
  return limits;
}

}  // namespace

DeviceDescription describe(int index) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(index));
  cudaDeviceProp properties;
  TORCH_CHECK(cudaGetDeviceProperties(&properties, index) == cudaSuccess, "cannot read the properties of GPU ", index);
  std::size_t free_bytes = 0, total_bytes = 0;
  TORCH_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess, "cannot read the memory of GPU ", index);
  auto available = static_cast<std::int64_t>(free_bytes);
  if (const auto limit = memory_limits().find(index); limit != memory_limits().end()) {
    const auto held = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(index)).reserved_bytes[0];
    available = std::min(available, std::max<std::int64_t>(0, limit->second - held.current));
  }
  return {properties.name, properties.major, properties.minor, static_cast<std::int64_t>(total_bytes), available};
}

void limit_memory(int index, std::int64_t bytes) {
  at::globalContext().lazyInitDevice(c10::kCUDA);  // the allocator, too
  const double share = static_cast<double>(bytes) / static_cast<double>(describe(index).total_bytes);
  c10::cuda::CUDACachingAllocator::setMemoryFraction(std::min(1.0, share), static_cast<c10::DeviceIndex>(index));
  memory_limits()[index] = bytes;
}

void use_device(int index) { c10::cuda::set_device(static_cast<c10::DeviceIndex>(index)); }

void synchronize() { c10::cuda::device_synchronize(); }

std::int64_t peak_allocated_bytes() {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
  return stats.reserved_bytes[0].peak;
}

}  // namespace nanochat::ops::cuda
