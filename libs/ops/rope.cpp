#include "ops/rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>

#include <cstring>

#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/reference.h"

namespace nanochat::ops {

RopeTable make_rope_table(std::int64_t positions, std::int64_t head_dim, double base, bool round_to_bf16) {
  const at::Tensor channels = at::arange(0, head_dim, 2, at::kFloat);
  const at::Tensor inverse_frequency = at::pow(at::Scalar(base), channels.div(static_cast<double>(head_dim))).reciprocal();
  const at::Tensor angles = at::outer(at::arange(positions, at::kFloat), inverse_frequency);
  RopeTable table{angles.cos(), angles.sin()};
  if (round_to_bf16) {
    table.cos = table.cos.to(at::kBFloat16).to(at::kFloat);
    table.sin = table.sin.to(at::kBFloat16).to(at::kFloat);
  }
  return table;
}

void rope_qk_norm(const at::Tensor& qkv, const RopeTable& table, const at::Tensor& start, at::Tensor& q, at::Tensor& k,
                  at::Tensor& rstd, double eps) {
  const std::int64_t batch = q.size(0), time = q.size(1), n_head = q.size(2), n_kv_head = k.size(2), d = q.size(3);
  const std::int64_t width = (n_head + 2 * n_kv_head) * d;
  TORCH_CHECK(qkv.numel() == batch * time * width, "rope_qk_norm: qkv ", qkv.sizes(), " does not fit q ", q.sizes(), " and k ",
              k.sizes());
  const std::int64_t positions = table.cos.size(0);
  const std::int64_t* starts = start.defined() ? start.const_data_ptr<std::int64_t>() : nullptr;
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t first = starts != nullptr ? starts[b] : 0;
    TORCH_CHECK(first >= 0 && first + time <= positions, "rope_qk_norm: positions ", first, "..", first + time,
                " exceed the table of ", positions);
  }
  if (qkv.is_cuda()) return on_gpu(cuda::rope_qk_norm, reference::rope_qk_norm)(qkv, table, start, q, k, rstd, eps);
  float* scale = rstd.defined() ? typed<float>(rstd) : nullptr;
  const float* cos = typed<float>(table.cos);
  const float* sin = typed<float>(table.sin);
  visit_dtype(qkv, "rope_qk_norm", [&]<class T>(T) {
    const auto kernel = cpu::kernels<T>().rope_norm;
    parallel_for(batch * time, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t position = (starts != nullptr ? starts[row / time] : 0) + row % time;
        const float* c = cos + position * (d / 2);
        const float* s = sin + position * (d / 2);
        const T* x = typed<T>(qkv) + row * width;
        float* rows = scale != nullptr ? scale + row * (n_head + n_kv_head) : nullptr;
        kernel(x, typed<T>(q) + row * n_head * d, rows, c, s, n_head, d, static_cast<float>(eps));
        kernel(x + n_head * d, typed<T>(k) + row * n_kv_head * d, rows != nullptr ? rows + n_head : nullptr, c, s, n_kv_head, d,
               static_cast<float>(eps));
      }
    });
  });
}

void rope_qk_norm_backward(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv, const at::Tensor& q,
                           const at::Tensor& k, const at::Tensor& rstd, const RopeTable& table, at::Tensor& dqkv) {
  const std::int64_t batch = q.size(0), time = q.size(1), n_head = q.size(2), n_kv_head = k.size(2), d = q.size(3);
  const std::int64_t width = (n_head + 2 * n_kv_head) * d;
  TORCH_CHECK(dqkv.numel() == batch * time * width && dq.numel() == q.numel() && dk.numel() == k.numel() &&
                  dv.numel() == k.numel(),
              "rope_qk_norm_backward: dqkv ", dqkv.sizes(), " does not fit q ", q.sizes(), " and k ", k.sizes());
  if (q.is_cuda())
    return on_gpu(cuda::rope_qk_norm_backward, reference::rope_qk_norm_backward)(dq, dk, dv, q, k, rstd, table, dqkv);
  visit_dtype(q, "rope_qk_norm_backward", [&]<class T>(T) {
    const auto kernel = cpu::kernels<T>().rope_norm_backward;
    parallel_for(batch * time, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const float* c = typed<float>(table.cos) + (row % time) * (d / 2);
        const float* s = typed<float>(table.sin) + (row % time) * (d / 2);
        const float* rows = typed<float>(rstd) + row * (n_head + n_kv_head);
        T* dx = typed<T>(dqkv) + row * width;
        kernel(typed<T>(dq) + row * n_head * d, typed<T>(q) + row * n_head * d, rows, c, s, dx, n_head, d);
        kernel(typed<T>(dk) + row * n_kv_head * d, typed<T>(k) + row * n_kv_head * d, rows + n_head, c, s, dx + n_head * d,
               n_kv_head, d);
        std::memcpy(dx + (n_head + n_kv_head) * d, typed<T>(dv) + row * n_kv_head * d,
                    static_cast<std::size_t>(n_kv_head * d) * sizeof(T));
      }
    });
  });
}

}  // namespace nanochat::ops
