#pragma once
// Matrix products and attention for serving, with few rows. Decoding reads each weight once per step, and so a product is
// limited by memory bandwidth. Results are batch-invariant: the order of each sum depends only on its length, and a row or a
// query has the same result, bit for bit, whatever the other rows of the batch are. As in kernels.h, the interface has only
// plain pointers; it is compiled for each instruction set and selected at run time.

#include <cstdint>

#include "ops/cpu/kernels.h"

namespace nanochat::ops::cpu {

// Keys and values of one head: position p is at (block[p / block_size] * block_stride + p % block_size * row_stride), with
// d numbers each. Kernels count keys from position `first`: those before it are outside a sliding window.
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
  // Queries of consecutive positions, d numbers each, ldq apart. The first sees the first `keys` positions,
  // each later one sees one more. y (ldy apart) = softmax(scale * q Kᵀ) V. scratch: attend_scratch() floats.
  void (*attend)(const T* q, std::int64_t ldq, std::int64_t queries, const PagedHead<T>& head, T* y, std::int64_t ldy,
                 float* scratch, std::int64_t keys, std::int64_t d, float scale);
  std::int64_t d_multiple;    // attend() needs a multiple of this as d
};

// Number of scratch floats of attend() if the last query sees `keys` positions: the scores of four queries.
constexpr std::int64_t attend_scratch(std::int64_t keys) { return 4 * (keys + 48); }

// Attention of prompts in float32, where many queries use the same
// keys. The last bits of a result may depend on the number of queries.
struct PromptAttention {
  std::int64_t (*scratch)(std::int64_t keys, std::int64_t d);  // floats, for queries of which the last sees `keys` positions
  // Queries of consecutive positions, ldq apart, of the `group` heads (d numbers apart) that share one head of
  // keys and values, ldkv apart. The first query sees `keys` positions. y (ldy apart) = softmax(scale * q Kᵀ) V.
  void (*attend)(const float* q, std::int64_t ldq, std::int64_t queries, const float* k, const float* v, std::int64_t ldkv,
                 std::int64_t group, float* y, std::int64_t ldy, std::int64_t keys, std::int64_t d, float scale,
                 float* scratch);
  std::int64_t d_multiple;
};
const PromptAttention& prompt_attention();

// The maximum of x, for a row of logits. NaN if any is NaN, -Inf if x is empty.
using Maximum = float (*)(const float* x, std::int64_t n);
Maximum maximum();

// For heads of size d on this processor: linear() of the best kernels, attend() of the best kernels that support d.
template <class T>
RowKernels<T> row_kernels(std::int64_t d = 0);
template <>
RowKernels<float> row_kernels<float>(std::int64_t d);
template <>
RowKernels<bf16> row_kernels<bf16>(std::int64_t d);

// True if linear() in float32 is also faster than MKL for many rows: AVX-512 processors of other makers than Intel.
bool float_rows_are_fastest();

}  // namespace nanochat::ops::cpu
