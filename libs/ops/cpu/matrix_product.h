#pragma once
// Large matrix products in bfloat16 for processors that multiply it natively; elsewhere the
// callers use ATen. As in kernels.h, the interface has only plain pointers and integers.
//
// C (m, n) = A (m, depth) B (depth, n) in tiles of C that stay in registers (Goto and van de Geijn
// 2008). Both operands are packed: B once, with one or several calls of pack(); A strip by strip by
// the thread that multiplies it. In a strip, two consecutive numbers of the depth are adjacent, as
// the instruction requires. Either order of a matrix in memory therefore costs the same, and backward
// products run at the rate of forward products. The order of each sum of C depends only on depth.

#include <cstdint>

#include "ops/cpu/kernels.h"

namespace nanochat::ops::cpu {

// Element (i, p) of A, or (p, i) of B, where p is the index in the depth:
// data[i * stride + p] with depth_inside, otherwise data[p * stride + i].
struct ProductOperand {
  const bf16* data;
  std::int64_t stride;
  bool depth_inside;
};

// Use of the sums S = A B; element (i, j) is at i * stride + j.
struct ProductResult {
  float* sum = nullptr;          // sum += S; else
  bf16* rounded = nullptr;       // rounded = alpha S + beta addend
  std::int64_t stride = 0;
  const bf16* addend = nullptr;  // laid out like `rounded`, and not the same; null: none
  float alpha = 1.0F, beta = 0.0F;
  // C is symmetric (m == n, and the addend is symmetric): tiles above the diagonal are mirrored.
  bool symmetric = false;
};

struct ProductKernels {
  std::int64_t strip;       // columns of B that are packed together
  std::int64_t rows;        // rows of C that are multiplied together; a thread's share is a multiple of this
  std::int64_t most_depth;  // maximum depth of one multiplication; a longer one is split
  // Number of elements of a packed B.
  std::int64_t (*packed_size)(std::int64_t n, std::int64_t depth);
  // Packs strips [first, last) of B.
  void (*pack)(const ProductOperand& b, std::int64_t n, std::int64_t depth, std::int64_t first, std::int64_t last,
               bf16* packed);
  // Bytes of scratch, 64-byte aligned, for multiply() with at most this many rows and strips.
  std::int64_t (*scratch_bytes)(std::int64_t rows, std::int64_t strips, std::int64_t depth);
  // Rows [row, row_end) and strips [first, last) of C.
  void (*multiply)(const ProductOperand& a, const bf16* packed, std::int64_t n, std::int64_t depth, std::int64_t row,
                   std::int64_t row_end, std::int64_t first, std::int64_t last, const ProductResult& c, void* scratch);
};

// Null if this processor has no AVX512-BF16, or if NANOCHAT_CPU selects less.
const ProductKernels* product_kernels();

// True if the processor has AMX (tiles of bfloat16 numbers). oneDNN then runs at many times the rate of these kernels.
bool has_matrix_tiles();

// True if the processor has the parts of AVX-512 that our kernels and oneDNN use. NANOCHAT_CPU does not count.
bool has_avx512();

}  // namespace nanochat::ops::cpu
