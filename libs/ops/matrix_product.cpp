#include "ops/matrix_product.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "ops/cpu/matrix_product.h"
#include "ops/internal/dispatch.h"

namespace nanochat::ops {
namespace {

constexpr std::int64_t kPackedBytes = 640 << 10;  // of B, which stay in a core's own cache while rows of A come and go
constexpr std::int64_t kMostRows = 256;
constexpr std::int64_t kUnitsPerThread = 4;       // at least, so that threads end at about the same time
constexpr std::int64_t kFewRows = 64;             // at most: B is read once, shared out among the threads

bool dense_rows(const at::Tensor& x) { return x.stride(1) == 1 || x.size(1) == 1; }

const cpu::ProductKernels& kernels() {
  const cpu::ProductKernels* kernels = cpu::product_kernels();
  TORCH_CHECK(kernels != nullptr, "matrix_product: this processor has no products of bfloat16 numbers");
  return *kernels;
}

// `depth`: the dimension that the sums run over.
cpu::ProductOperand operand(const at::Tensor& x, std::int64_t depth) {
  TORCH_CHECK(x.dim() == 2 && x.is_cpu() && x.scalar_type() == at::kBFloat16 && x.numel() > 0,
              "matrix_product: expected a bfloat16 matrix on the CPU, got ", x.scalar_type(), " ", x.sizes(), " on ",
              x.device());
  const auto* data = static_cast<const cpu::bf16*>(x.const_data_ptr());
  const std::int64_t other = 1 - depth;
  if (x.stride(depth) == 1 || x.size(depth) == 1) return {data, x.stride(other), true};
  TORCH_CHECK(x.stride(other) == 1 || x.size(other) == 1, "matrix_product: numbers lie apart, strides ", x.strides());
  return {data, x.stride(depth), false};
}

// Memory of the calling thread that its next product uses again.
std::uint8_t* scratch_of(std::int64_t bytes) {
  struct alignas(64) Line {
    std::uint8_t bytes[64];
  };
  thread_local std::vector<Line> lines;
  const auto wanted = static_cast<std::size_t>(bytes) / sizeof(Line) + 1;
  if (lines.size() < wanted) lines.resize(wanted);
  return lines.front().bytes;
}

std::int64_t strips_of(const PackedMatrix& b) { return (b.columns() + kernels().strip - 1) / kernels().strip; }

// Threads take one unit after the other, some rows by some strips, in an order that keeps strips where they are cached.
void multiply(const at::Tensor& a, const PackedMatrix& b, const cpu::ProductResult& result) {
  const cpu::ProductKernels& k = kernels();
  const cpu::ProductOperand left = operand(a, 1);
  const std::int64_t m = a.size(0), depth = b.depth(), strips = strips_of(b);
  const std::int64_t threads = num_threads();
  std::int64_t fitting = std::max<std::int64_t>(1, kPackedBytes / (2 * k.strip * std::min(depth, k.most_depth)));
  if (m <= kFewRows) fitting = (strips + threads - 1) / threads;
  const std::int64_t blocks = (strips + fitting - 1) / fitting, block = (strips + blocks - 1) / blocks;
  std::int64_t rows = kMostRows;
  while (m > kFewRows && rows > k.rows && (m + rows - 1) / rows * blocks < kUnitsPerThread * threads) rows /= 2;
  const std::int64_t pieces = (m + rows - 1) / rows, units = pieces * blocks;
  const std::int64_t scratch_bytes = k.scratch_bytes(std::min(rows, m), block, depth);
  const auto* packed = static_cast<const cpu::bf16*>(b.data().const_data_ptr());
  std::atomic<std::int64_t> next = 0;
  parallel_for(std::min(threads, units), 1, [&](std::int64_t, std::int64_t) {
    std::uint8_t* scratch = scratch_of(scratch_bytes);
    for (std::int64_t unit = next++; unit < units; unit = next++) {
      const std::int64_t first = unit / pieces * block, row = unit % pieces * rows;
      k.multiply(left, packed, b.columns(), depth, row, std::min(row + rows, m), first, std::min(first + block, strips), result,
                 scratch);
    }
  });
}

cpu::ProductResult rounded_result(const at::Tensor& a, const PackedMatrix& b, at::Tensor& y, double alpha,
                                  const at::Tensor& addend, double beta) {
  const auto fits = [&](const at::Tensor& x) {
    return x.dim() == 2 && x.size(0) == a.size(0) && x.size(1) == b.columns() && x.scalar_type() == at::kBFloat16 &&
           dense_rows(x);
  };
  TORCH_CHECK(a.dim() == 2 && a.size(1) == b.depth() && fits(y), "matrix_product: ", a.sizes(), " times (", b.depth(), ", ",
              b.columns(), ") does not fit y ", y.sizes());
  cpu::ProductResult result;
  result.rounded = static_cast<cpu::bf16*>(y.data_ptr());
  result.stride = y.stride(0);
  result.alpha = static_cast<float>(alpha);
  if (addend.defined()) {
    TORCH_CHECK(fits(addend) && addend.stride(0) == y.stride(0) && addend.const_data_ptr() != y.const_data_ptr(),
                "matrix_product: addend ", addend.sizes(), " is not laid out like y ", y.sizes(), ", or is y");
    result.addend = static_cast<const cpu::bf16*>(addend.const_data_ptr());
    result.beta = static_cast<float>(beta);
  }
  return result;
}

}  // namespace

bool has_product_kernels(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 && cpu::product_kernels() != nullptr;
}

bool has_fastest_products(const at::Tensor& x) { return has_product_kernels(x) && !cpu::has_matrix_tiles(); }

PackedMatrix::PackedMatrix(const at::Tensor& b) : depth_(b.size(0)), columns_(b.dim() == 2 ? b.size(1) : 0) {
  const cpu::ProductKernels& k = kernels();
  const cpu::ProductOperand right = operand(b, 0);
  data_ = at::empty({k.packed_size(columns_, depth_)}, at::kBFloat16);
  auto* packed = static_cast<cpu::bf16*>(data_.data_ptr());
  parallel_for(strips_of(*this), row_grain(k.strip * depth_),
               [&](std::int64_t first, std::int64_t last) { k.pack(right, columns_, depth_, first, last, packed); });
}

void product(const at::Tensor& a, const PackedMatrix& b, at::Tensor& y, double alpha, const at::Tensor& addend, double beta) {
  multiply(a, b, rounded_result(a, b, y, alpha, addend, beta));
}

void add_product(const at::Tensor& a, const PackedMatrix& b, at::Tensor& sum) {
  TORCH_CHECK(a.dim() == 2 && a.size(1) == b.depth() && sum.dim() == 2 && sum.size(0) == a.size(0) &&
                  sum.size(1) == b.columns() && sum.scalar_type() == at::kFloat && dense_rows(sum),
              "matrix_product: ", a.sizes(), " times (", b.depth(), ", ", b.columns(), ") does not fit the sum ", sum.sizes());
  cpu::ProductResult result;
  result.sum = static_cast<float*>(sum.data_ptr());
  result.stride = sum.stride(0);
  multiply(a, b, result);
}

void symmetric_product(const at::Tensor& x, at::Tensor& y, double alpha, const at::Tensor& addend, double beta) {
  const PackedMatrix right(x.t());
  cpu::ProductResult result = rounded_result(x, right, y, alpha, addend, beta);
  result.symmetric = true;
  multiply(x, right, result);
}

}  // namespace nanochat::ops
