#pragma once
// For the implementations of ops/ only: from a tensor to typed rows.

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

#include "ops/cpu/kernels.h"
#include "ops/cpu/row_products.h"
#include "ops/device.h"
#include "ops/parallel.h"

namespace nanochat::ops {

// Calls body with float{} or cpu::bf16{} by the dtype of `tensor`.
template <class Body>
decltype(auto) visit_dtype(const at::Tensor& tensor, const char* what, Body&& body) {
  TORCH_CHECK(tensor.is_cpu(), what, ": expected a CPU tensor, got ", tensor.device());
  if (tensor.scalar_type() == at::kFloat) return body(float{});
  TORCH_CHECK(tensor.scalar_type() == at::kBFloat16, what, ": expected float32 or bfloat16, got ", tensor.scalar_type());
  return body(cpu::bf16{});
}

// Which of the two a tensor on a GPU goes to.
template <class Function>
Function* on_gpu(Function* kernels, Function* reference) {
  return use_reference_kernels() ? reference : kernels;
}

template <class T>
T* typed(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous(), "expected a contiguous tensor, got strides ", tensor.strides());
  return static_cast<T*>(tensor.data_ptr());
}

// What attention multiplies scores by.
inline float softmax_scale(std::int64_t head_dim) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim))); }

// Queries of one head that the kernels for cached keys answer together: few enough that threads share out a prompt evenly.
inline constexpr std::int64_t kQueriesAtOnce = 16;

// RowKernels::attend for queries ld apart in q and y alike. Those whose window ends before the first position are answered one
// by one, so that no key outside is read.
template <class T, class Attend>
void attend_in_window(Attend attend, const T* q, std::int64_t ld, std::int64_t queries, cpu::PagedHead<T> head, T* y,
                      float* scratch, std::int64_t keys, std::int64_t d, float scale, std::optional<std::int64_t> window) {
  const std::int64_t whole = window ? std::clamp<std::int64_t>(*window + 2 - keys, 0, queries) : queries;
  if (whole > 0) attend(q, ld, whole, head, y, ld, scratch, keys, d, scale);
  for (std::int64_t i = whole; i < queries; ++i) {
    head.first = keys + i - 1 - *window;
    attend(q + i * ld, ld, 1, head, y + i * ld, ld, scratch, *window + 1, d, scale);
  }
}

// Rows a thread should get at least, so that starting the others pays: about 16k elements.
inline std::int64_t row_grain(std::int64_t row_size) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(row_size, 1));
}

}  // namespace nanochat::ops
