#pragma once
// Matrix products and attention for serving, where few rows meet all weights: decoding reads each weight once a step, so
// that a product is bound by memory, and rows come and go from step to step. Results are batch-invariant: every number of a
// result is summed in an order that depends only on the length of the sum, so that a row or a query comes out the same, bit
// for bit, whatever the other rows of the batch are.
// As in kernels.h, plain pointers only; compiled for each instruction set and chosen at run time.

#include <cstdint>

#include "ops/cpu/kernels.h"

namespace nanochat::ops::cpu {

// Where the keys and values of one head lie: position p at (block[p / block_size] * block_stride + p % block_size *
// row_stride), d numbers each. Kernels count keys from position `first`: those before it are outside a sliding window.
template <class T>
struct PagedHead {
  const T* keys;
  const T* values;
  const std::int32_t* blocks;
  std::int64_t block_size;    // a power of two
  std::int64_t block_stride;  // elements
  std::int64_t row_stride;
  std::int64_t first = 0;
};

template <class T>
struct RowKernels {
  // y (rows, columns; ldy apart) = x (rows, n; ldx apart) wᵀ for `columns` rows of w (ldw apart). Sums in float32.
  void (*linear)(const T* x, std::int64_t ldx, std::int64_t rows, const T* w, std::int64_t ldw, std::int64_t columns,
                 std::int64_t n, T* y, std::int64_t ldy);
  // Queries of positions that follow each other, d numbers each, ldq apart, of which the first sees the first `keys`
  // positions and each later one more: y (ldy apart) = softmax(scale * q Kᵀ) V. scratch: attend_scratch() floats.
  void (*attend)(const T* q, std::int64_t ldq, std::int64_t queries, const PagedHead<T>& head, T* y, std::int64_t ldy,
                 float* scratch, std::int64_t keys, std::int64_t d, float scale);
  std::int64_t d_multiple;    // what d must be a multiple of for attend()
};

// Floats that attend() wants for queries of which the last sees `keys` positions: the scores of four.
constexpr std::int64_t attend_scratch(std::int64_t keys) { return 4 * (keys + 48); }

// Attention of prompts in float32, where many queries meet the same keys; what a query comes to may depend on how many
// others there are, in the last bits.
struct PromptAttention {
  std::int64_t (*scratch)(std::int64_t keys, std::int64_t d);  // floats, for queries of which the last sees `keys` positions
  // Queries of positions that follow each other, ldq apart, of the `group` heads that lie d numbers apart and read one head
  // of keys and values, ldkv apart; the first sees `keys` positions. y (ldy apart) = softmax(scale * q Kᵀ) V.
  void (*attend)(const float* q, std::int64_t ldq, std::int64_t queries, const float* k, const float* v, std::int64_t ldkv,
                 std::int64_t group, float* y, std::int64_t ldy, std::int64_t keys, std::int64_t d, float scale, float* scratch);
  std::int64_t d_multiple;
};
const PromptAttention& prompt_attention();

// The largest of x; NaN when one is NaN, -Inf when there is none. For a row of logits.
using Maximum = float (*)(const float* x, std::int64_t n);
Maximum maximum();

// For heads of size d, whatever the processor: linear() is that of the best kernels, attend() of the best that take d.
template <class T>
RowKernels<T> row_kernels(std::int64_t d = 0);
template <>
RowKernels<float> row_kernels<float>(std::int64_t d);
template <>
RowKernels<bf16> row_kernels<bf16>(std::int64_t d);

// Whether linear() in float32 is faster than MKL with many rows too: on AVX-512 of makers other than Intel.
bool float_rows_are_fastest();

}  // namespace nanochat::ops::cpu
