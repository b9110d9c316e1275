#pragma once
// Large matrix products in bfloat16 for processors that multiply it natively; elsewhere the callers go through ATen. As in
// kernels.h, only plain pointers and integers cross this border.
//
// C (m, n) = A (m, depth) B (depth, n) by tiles of C that stay in registers (Goto and van de Geijn 2008). Both operands are
// packed: B once, by one call of pack() or several, A strip by strip by the thread that multiplies it. In a strip two numbers
// that follow each other in the depth stand side by side, as the instruction wants them; so either order of a matrix in
// memory costs the same, and the products of a backward pass run at the rate of those of the forward pass.
// Every number of C is summed in an order that depends on depth alone.

#include <cstdint>

#include "ops/cpu/kernels.h"

namespace nanochat::ops::cpu {

// Element (i, p) of A, or (p, i) of B, where p runs through the depth, is data[i * stride + p] with depth_inside, else
// data[p * stride + i].
struct ProductOperand {
  const bf16* data;
  std::int64_t stride;
  bool depth_inside;
};

// What becomes of the sums S = A B; element (i, j) at i * stride + j.
struct ProductResult {
  float* sum = nullptr;          // sum += S; else
  bf16* rounded = nullptr;       // rounded = alpha S + beta addend
  std::int64_t stride = 0;
  const bf16* addend = nullptr;  // laid out like `rounded`, and not the same; null: none
  float alpha = 1.0F, beta = 0.0F;
  // C is symmetric (m == n, and so is the addend): what lies above the diagonal by a tile and more is mirrored.
  bool symmetric = false;
};

struct ProductKernels {
  std::int64_t strip;       // columns of B that are packed together
  std::int64_t rows;        // rows of C that are multiplied together: shares of threads are multiples of this
  std::int64_t most_depth;  // that is multiplied at a time: a longer one in blocks
  // Numbers of a packed B.
  std::int64_t (*packed_size)(std::int64_t n, std::int64_t depth);
  // Packs strips [first, last) of B.
  void (*pack)(const ProductOperand& b, std::int64_t n, std::int64_t depth, std::int64_t first, std::int64_t last, bf16* packed);
  // Bytes of scratch, 64-byte aligned, for multiply() with at most so many rows and strips.
  std::int64_t (*scratch_bytes)(std::int64_t rows, std::int64_t strips, std::int64_t depth);
  // Rows [row, row_end) and strips [first, last) of C.
  void (*multiply)(const ProductOperand& a, const bf16* packed, std::int64_t n, std::int64_t depth, std::int64_t row,
                   std::int64_t row_end, std::int64_t first, std::int64_t last, const ProductResult& c, void* scratch);
};

// Null when this processor has no AVX512-BF16, or NANOCHAT_CPU asks for less.
const ProductKernels* product_kernels();

// Whether the processor multiplies tiles of bfloat16 numbers (AMX), as oneDNN does then, at many times the rate of these kernels.
bool has_matrix_tiles();

}  // namespace nanochat::ops::cpu
