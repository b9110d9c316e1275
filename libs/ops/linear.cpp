#include "ops/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "ops/cast.h"
#include "ops/cpu/matrix_product.h"
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

struct Tiles {
  std::int64_t rows, columns;
};
// cuBLAS's fastest products on Hopper compute tiles of these shapes, one per multiprocessor at a time.
constexpr Tiles kTall{320, 128}, kFlat{128, 256};

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The share of the multiprocessors that work, on average, while a product of this shape is computed.
double occupied(const Tiles& tiles, std::int64_t rows, std::int64_t columns, std::int64_t multiprocessors) {
  const std::int64_t count = divide_up(rows, tiles.rows) * divide_up(columns, tiles.columns);
  return static_cast<double>(count) / static_cast<double>(divide_up(count, multiprocessors) * multiprocessors);
}

// How many of the rows of a weight gradient (rows >= columns) to compute in one product; the others follow in a second one,
// which is so small that cuBLAS divides its sums. A gradient has few tiles with long sums: those of 5120 x 1280 are a wave and a
// quarter of an H200, which takes as long as two waves (602 TFLOP/s; divided at 3840 rows, 706).
std::int64_t rows_at_once(std::int64_t rows, std::int64_t columns, std::int64_t multiprocessors) {
  constexpr double kGoodShare = 0.85;
  constexpr std::int64_t kCluster = 8;  // multiprocessors that work together: these kernels use whole clusters alone
  for (const Tiles& tiles : {kTall, kFlat}) {
    if (occupied(tiles, rows, columns, multiprocessors) >= kGoodShare) return rows;
  }
  const std::int64_t of_a_wave = multiprocessors / kCluster * kCluster / divide_up(columns, kTall.columns);
  if (of_a_wave == 0) return rows;
  const std::int64_t lines = divide_up(rows, kTall.rows), waves = lines / of_a_wave;
  const std::int64_t first = waves * of_a_wave * kTall.rows;
  // Without a whole wave, cuBLAS divides the sums of all of it; and a second product that fills more than half a wave is no gain.
  return waves == 0 || first >= rows || 2 * (lines - waves * of_a_wave) > of_a_wave ? rows : first;
}

// dw (float32) += dy^T x, both bfloat16 on a GPU.
void add_weight_gradient(const at::Tensor& dy, const at::Tensor& x, at::Tensor& dw) {
  const auto add = [](const at::Tensor& of_dy, const at::Tensor& of_x, at::Tensor part) {
    at::addmm_out(part, part, of_dy.t(), of_x, at::kFloat);
  };
  const bool tall = dw.size(0) >= dw.size(1);
  const std::int64_t longer = std::max(dw.size(0), dw.size(1)), shorter = std::min(dw.size(0), dw.size(1));
  const std::int64_t first = rows_at_once(longer, shorter, cuda::multiprocessor_count(dw.device().index()));
  const auto add_part = [&](std::int64_t begin, std::int64_t length) {
    if (length == 0) return;
    tall ? add(dy.narrow(1, begin, length), x, dw.narrow(0, begin, length))
         : add(dy, x.narrow(1, begin, length), dw.narrow(1, begin, length));
  };
  add_part(0, first);
  add_part(first, longer - first);
}

constexpr std::int64_t kFloatBytes = 4;

// Of which products in bfloat16 on this CPU ATen has the whole result in float32.
enum class FloatResults { kNone, kWeightGradients, kAll };

FloatResults float_results() {
  if (cpu_has_fast_bf16()) return FloatResults::kNone;  // oneDNN, tile by tile
  // oneDNN, which multiplies float32 numbers; or loops of ATen, which have such a sum where both matrices are read by columns.
  return cpu::has_avx512() ? FloatResults::kAll : FloatResults::kWeightGradients;
}

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

std::int64_t linear_scratch_bytes(std::int64_t rows, std::int64_t columns, at::ScalarType dtype) {
  return dtype != at::kFloat && float_results() == FloatResults::kAll ? rows * columns * kFloatBytes : 0;
}

std::int64_t weight_gradient_scratch_bytes(std::int64_t rows, std::int64_t columns, at::ScalarType dtype) {
  return dtype != at::kFloat && float_results() != FloatResults::kNone ? rows * columns * kFloatBytes : 0;
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
    add_weight_gradient(dy, x, dw);
  }
}

}  // namespace nanochat::ops
