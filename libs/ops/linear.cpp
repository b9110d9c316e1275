#include "ops/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "ops/cast.h"
#include "ops/cpu/row_products.h"
#include "ops/cuda/backend.h"
#include "ops/cuda/kernels.h"
#include "ops/internal/dispatch.h"
#include "ops/matrix_product.h"
#include "ops/relu_squared.h"
#include "ops/rms_norm.h"

#include <algorithm>

namespace nanochat::ops {

namespace {

// Fewer rows do not pay for the packing of w.
constexpr std::int64_t kFewestRows = 64;

bool has_own_product(const at::Tensor& x) { return has_fastest_products(x) && x.size(0) >= kFewestRows; }

}  // namespace

void linear(const at::Tensor& x, const at::Tensor& w, at::Tensor& y) {
  has_own_product(x) ? product(x, PackedMatrix(w.t()), y) : static_cast<void>(at::mm_out(y, x, w.t()));
}

void add_linear(const at::Tensor& x, const at::Tensor& w, at::Tensor& y) { y.addmm_(x, w.t()); }

void linear_rows(const at::Tensor& x, const at::Tensor& w, at::Tensor& y) {
  const std::int64_t rows = x.size(0), n = x.size(1), columns = w.size(0);
  TORCH_CHECK(w.size(1) == n && y.size(0) == rows && y.size(1) == columns && x.scalar_type() == w.scalar_type() &&
                  x.scalar_type() == y.scalar_type() && x.stride(1) == 1 && w.stride(1) == 1 && y.stride(1) == 1,
              "linear_rows: x ", x.sizes(), " and w ", w.sizes(), " do not fit y ", y.sizes());
  if (!x.is_cpu()) {
    if (x.is_cuda() && !use_reference_kernels() && cuda::linear_rows(x, w, y, {})) return;
    return linear(x, w, y);
  }
  visit_dtype(x, "linear_rows", [&]<class T>(T) {
    const auto multiply = cpu::row_kernels<T>().linear;
    const T* from = static_cast<const T*>(x.const_data_ptr());
    const T* weights = static_cast<const T*>(w.const_data_ptr());
    T* to = static_cast<T*>(y.data_ptr());
    parallel_for(columns, row_grain(n * rows), [&](std::int64_t begin, std::int64_t end) {
      multiply(from, x.stride(0), rows, weights + begin * w.stride(0), w.stride(0), end - begin, n, to + begin, y.stride(0));
    });
  });
}

void linear_rows(const at::Tensor& x, const at::Tensor& w, at::Tensor& y, const LinearFusion& fusion) {
  if (x.is_cuda() && !use_reference_kernels()) {
    if (cuda::linear_rows(x, w, y, fusion)) return;
    if (x.size(0) > cuda::kMostLinearRows) {
      for (std::int64_t first = 0; first < x.size(0); first += cuda::kMostLinearRows) {
        const std::int64_t rows = std::min(cuda::kMostLinearRows, x.size(0) - first);
        at::Tensor part = y.narrow(0, first, rows);
        linear_rows(x.narrow(0, first, rows), w, part, fusion);
      }
      return;
    }
  }
  at::Tensor from = x, to = y, none;
  if (fusion.normalise) {
    from = at::empty_like(x);
    rms_norm(x, from, none, fusion.eps);
  }
  if (fusion.add) to = at::empty_like(y);
  linear_rows(from, w, to);
  if (fusion.relu_squared) relu_squared(to, to);
  if (fusion.add) y.add_(to);
}

void linear_inference(const at::Tensor& x, const at::Tensor& w, at::Tensor& y) {
  // Where a product is bound by arithmetic, the libraries know the processor better; but MKL takes half of what other
  // makers' processors can (a core of a Zen 4: 55 GFLOP/s in float32, where our kernels reach 80 to 97).
  const bool narrow = x.scalar_type() != at::kFloat;
  const bool few = x.size(0) <= (narrow ? 64 : 16);
  return few || (!narrow && cpu::float_rows_are_fastest()) ? linear_rows(x, w, y) : linear(x, w, y);
}

void linear_backward_input(const at::Tensor& dy, const at::Tensor& w, at::Tensor& dx) {
  has_own_product(dy) ? product(dy, PackedMatrix(w), dx) : static_cast<void>(at::mm_out(dx, dy, w));
}

bool needs_weight_scratch(const at::Tensor& x) {
  return x.scalar_type() != at::kFloat && !x.is_cuda() && !has_fastest_products(x);
}

void linear_backward_weight(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dw, at::Tensor& scratch) {
  if (has_fastest_products(x)) {
    add_product(dy.t(), PackedMatrix(x), dw);
  } else if (needs_weight_scratch(x)) {
    at::mm_out(scratch, dy.t(), x);
    accumulate(dw, scratch);
  } else if (x.scalar_type() == at::kFloat) {
    dw.addmm_(dy.t(), x);
  } else {
    at::addmm_out(dw, dw, dy.t(), x, at::kFloat);
  }
}

}  // namespace nanochat::ops
