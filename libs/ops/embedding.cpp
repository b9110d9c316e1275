#include "ops/embedding.h"

#include <cstring>

#include "ops/cuda/backend.h"
#include "ops/internal/dispatch.h"
#include "ops/reference.h"

namespace nanochat::ops {

void embedding(const at::Tensor& table, const at::Tensor& ids, at::Tensor& y) {
  const std::int64_t width = table.size(1), rows = table.size(0), n = ids.numel();
  TORCH_CHECK(ids.scalar_type() == at::kInt, "embedding: expected int32 ids, got ", ids.scalar_type());
  TORCH_CHECK(y.numel() == n * width && y.scalar_type() == table.scalar_type(), "embedding: y ", y.sizes(), " does not fit ", n,
              " rows of table ", table.sizes());
  // Where ids are out of range the kernel gives NaN.
  if (table.is_cuda()) return on_gpu(cuda::embedding, reference::embedding)(table, ids, y);
  const std::int32_t* id = typed<std::int32_t>(ids);
  for (std::int64_t i = 0; i < n; ++i) {
    TORCH_CHECK(id[i] >= 0 && id[i] < rows, "embedding: token id ", id[i], " is outside the vocabulary of ", rows);
  }
  visit_dtype(table, "embedding", [&]<class T>(T) {
    parallel_for(n, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        std::memcpy(typed<T>(y) + i * width, typed<T>(table) + id[i] * width, static_cast<std::size_t>(width) * sizeof(T));
      }
    });
  });
}

void embedding_rms_norm(const at::Tensor& table, const at::Tensor& inputs, const at::Tensor& drawn, at::Tensor& ids,
                        at::Tensor& y, double eps) {
  TORCH_CHECK(table.is_cuda() && inputs.scalar_type() == at::kInt && drawn.scalar_type() == at::kInt &&
                  inputs.is_contiguous() && drawn.is_contiguous() && ids.is_contiguous() && ids.scalar_type() == at::kInt &&
                  ids.numel() == inputs.numel() && y.numel() == inputs.numel() * table.size(1) &&
                  y.scalar_type() == table.scalar_type(),
              "embedding_rms_norm: y ", y.sizes(), " does not fit ", inputs.numel(), " rows of table ", table.sizes());
  cuda::embedding_rms_norm(table, inputs, drawn, ids, y, eps);
}

TokenOrder order_tokens(const at::Tensor& ids) { return ids.is_cuda() ? cuda::order_tokens(ids) : TokenOrder(); }

void embedding_backward(const at::Tensor& dy, const at::Tensor& ids, at::Tensor& dtable, const TokenOrder& order) {
  const std::int64_t width = dtable.size(1), n = ids.numel();
  TORCH_CHECK(dy.numel() == n * width && dtable.scalar_type() == at::kFloat, "embedding_backward: dy ", dy.sizes(),
              " does not fit ", n, " rows of dtable ", dtable.sizes());
  if (dy.is_cuda()) {
    if (use_reference_kernels()) return reference::embedding_backward(dy, ids, dtable);
    return cuda::embedding_backward(dy, order.ids.defined() ? order : order_tokens(ids), dtable);
  }
  const std::int32_t* id = typed<std::int32_t>(ids);
  visit_dtype(dy, "embedding_backward", [&]<class T>(T) {
    const auto add = cpu::kernels<T>().accumulate;
    parallel_for(dtable.size(0), 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = 0; i < n; ++i) {
        if (id[i] >= first && id[i] < last) add(typed<float>(dtable) + id[i] * width, typed<T>(dy) + i * width, width);
      }
    });
  });
}

}  // namespace nanochat::ops
