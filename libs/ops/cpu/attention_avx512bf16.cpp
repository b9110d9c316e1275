// The attention kernels for AVX512-BF16. Every product is a sum over pairs of bf16 numbers, the two halves of a
// 32-bit word: A has words along its rows, B is packed into panels of 32 columns with the words of one pair of rows
// together (the layout of VDPBF16PS), C is float32.
#include <immintrin.h>

#include "ops/cpu/attention_kernels.h"

namespace nanochat::ops::cpu::avx512bf16 {
namespace {

#include "ops/cpu/avx512.inc"

// Two bf16 numbers as one broadcast reads them, wherever they lie.
using Word = std::uint32_t __attribute__((__may_alias__));

constexpr i64 kTileRows = 8;     // of C in registers: 8 x 32 numbers, 16 of the 32 registers
constexpr i64 kPanel = 32;       // columns of B that lie together
constexpr i64 kQueryBlock = 64;  // queries whose scores are summed into dk and dv at a time
constexpr i64 kPairs = kQueryBlock / 2;

NANOCHAT_INLINE i64 padded_time(i64 time) { return round_up(time, kPanel); }
// Row strides of scores: off the powers of two that would send all rows to the same cache lines.
NANOCHAT_INLINE i64 score_stride(i64 time) { return padded_time(time) + 16; }

NANOCHAT_INLINE const Word* words_of(const bf16* rows) { return reinterpret_cast<const Word*>(rows); }
// Words with `first` in the low and `second` in the high half.
NANOCHAT_INLINE __m512i pair(__m256i first, __m256i second) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(first), widen_bits(second));
}

// c (8 x 32, rows ldc apart) = or += A B: `a` has rows lda words apart, `b` is a panel, `pairs` words are summed.
template <bool kAccumulate>
NANOCHAT_INLINE void multiply_tile(const Word* a, i64 lda, const Word* b, i64 pairs, float* c, i64 ldc) {
  __m512 left[kTileRows], right[kTileRows];
#pragma GCC unroll 8
  for (int row = 0; row < kTileRows; ++row) {
    left[row] = kAccumulate ? _mm512_loadu_ps(c + row * ldc) : _mm512_setzero_ps();
    right[row] = kAccumulate ? _mm512_loadu_ps(c + row * ldc + 16) : _mm512_setzero_ps();
  }
  for (i64 p = 0; p < pairs; ++p) {
    const __m512bh b_left = (__m512bh)_mm512_loadu_si512(b + p * kPanel);
    const __m512bh b_right = (__m512bh)_mm512_loadu_si512(b + p * kPanel + 16);
#pragma GCC unroll 8
    for (int row = 0; row < kTileRows; ++row) {
      const __m512bh word = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[row * lda + p]));
      left[row] = _mm512_dpbf16_ps(left[row], word, b_left);
      right[row] = _mm512_dpbf16_ps(right[row], word, b_right);
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kTileRows; ++row) {
    _mm512_storeu_ps(c + row * ldc, left[row]);
    _mm512_storeu_ps(c + row * ldc + 16, right[row]);
  }
}

// Eight rows of C: all `columns` (a multiple of 32), panels `panel_words` apart.
NANOCHAT_INLINE void multiply_rows(const Word* a, i64 lda, const Word* b, i64 panel_words, i64 pairs, i64 columns, float* c,
                                   i64 ldc) {
  for (i64 n = 0; n < columns; n += kPanel) {
    multiply_tile<false>(a, lda, b + n / kPanel * panel_words, pairs, c + n, ldc);
  }
}

// 16 x 16 words: rows[i] holds row i, and then column i.
NANOCHAT_INLINE void transpose(__m512i rows[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // rows[4i + j]: column 4l + j of rows 4i..4i+3 in lane l
    rows[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    rows[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i even_low = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd);
    const __m512i even_high = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
    const __m512i odd_high = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    t[4 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) rows[i] = t[i];
}

// B = xᵀ as panels of positions: word (p, t) is the pair (x[t][2p], x[t][2p+1]). Positions from `time` on are zero.
void pack_transposed(HeadRows x, i64 time, i64 d, Word* panels) {
  const i64 words = d / 2;
  for (i64 t = 0; t < padded_time(time); t += 16) {
    Word* panel = panels + t / kPanel * words * kPanel + t % kPanel;
    for (i64 p = 0; p < words; p += 16) {
      __m512i rows[16];
      for (i64 i = 0; i < 16; ++i) {
        rows[i] = t + i < time ? _mm512_loadu_si512(x.data + (t + i) * x.stride + 2 * p) : _mm512_setzero_si512();
      }
      transpose(rows);
      for (i64 i = 0; i < 16; ++i) _mm512_storeu_si512(panel + (p + i) * kPanel, rows[i]);
    }
  }
}

// B = x as panels of channels: word (t, c) is the pair (x[2t][c], x[2t+1][c]). Positions from `time` on are zero.
void pack_pairs(HeadRows x, i64 time, i64 d, Word* panels) {
  const i64 pairs = padded_time(time) / 2;
  for (i64 t = 0; t < pairs; ++t) {
    const bf16* first = x.data + 2 * t * x.stride;
    for (i64 c = 0; c < d; c += 16) {
      const __m256i low = 2 * t < time ? load16(first + c) : _mm256_setzero_si256();
      const __m256i high = 2 * t + 1 < time ? load16(first + x.stride + c) : _mm256_setzero_si256();
      _mm512_storeu_si512(panels + (c / kPanel * pairs + t) * kPanel + c % kPanel, pair(low, high));
    }
  }
}

// A = xᵀ of a block of queries: word (c, t) is the pair (x[2t][c], x[2t+1][c]); x is dense, (kQueryBlock, d).
void pack_block_transposed(const bf16* x, i64 d, Word* block) {
  for (i64 t = 0; t < kPairs; t += 16) {
    for (i64 c = 0; c < d; c += 16) {
      __m512i rows[16];
      for (i64 i = 0; i < 16; ++i) {
        const bf16* first = x + 2 * (t + i) * d + c;
        rows[i] = pair(load16(first), load16(first + d));
      }
      transpose(rows);
      for (i64 i = 0; i < 16; ++i) _mm512_storeu_si512(block + (c + i) * kPairs + t, rows[i]);
    }
  }
}

// Copies `rows` rows from position `begin`, zeros behind them up to `padded`.
void copy_rows(HeadRows x, i64 begin, i64 rows, i64 padded, i64 d, bf16* to) {
  for (i64 t = 0; t < padded; ++t) {
    const bf16* row = x.data + (begin + t) * x.stride;
    for (i64 c = 0; c < d; c += 16) store16(to + t * d + c, t < rows ? load16(row + c) : _mm256_setzero_si256());
  }
}

// x: (d, time) float, rows `stride` apart; out[t] = column t.
void store_transposed(const float* x, i64 stride, i64 time, i64 d, MutableHeadRows out) {
  for (i64 t = 0; t < time; t += 16) {
    for (i64 c = 0; c < d; c += 16) {
      __m512i rows[16];
      for (i64 i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(x + (c + i) * stride + t);
      transpose(rows);
      for (i64 i = 0; i < smaller(16, time - t); ++i) {
        store16(out.data + (t + i) * out.stride + c, to_bf16(_mm512_castsi512_ps(rows[i])));
      }
    }
  }
}

// Of the 16 keys from `begin`, those before `end`.
NANOCHAT_INLINE __mmask16 keys_before(i64 begin, i64 end) { return first16(end - begin); }

// Memory for one head, handed out piece by piece.
struct Scratch {
  char* next;
  template <class T>
  T* take(i64 elements) {
    T* piece = reinterpret_cast<T*>(next);
    next += round_up(elements * static_cast<i64>(sizeof(T)), 64);
    return piece;
  }
};

// exp(scale * s - maximum) of the first `keys` of a row of scores, as bf16, zeros up to `limit`. Returns the sum.
float softmax_row(const float* scores, i64 keys, i64 limit, float scale, bf16* weights, float* maximum) {
  __m512 highest = _mm512_set1_ps(-3.4e38F);
  for (i64 n = 0; n < keys; n += 16) {
    highest = _mm512_mask_max_ps(highest, keys_before(n, keys), highest, _mm512_loadu_ps(scores + n));
  }
  *maximum = _mm512_reduce_max_ps(highest) * scale;
  const __m512 shift = _mm512_set1_ps(*maximum), factor = _mm512_set1_ps(scale);
  __m512 sum = _mm512_setzero_ps();
  for (i64 n = 0; n < limit; n += 16) {
    const __m512 weight = _mm512_maskz_mov_ps(keys_before(n, keys),
                                              exp16(_mm512_fmsub_ps(_mm512_loadu_ps(scores + n), factor, shift)));
    sum = _mm512_add_ps(sum, weight);
    store16(weights + n, to_bf16(weight));
  }
  return _mm512_reduce_add_ps(sum);
}

std::size_t forward_scratch(i64 time, i64 d) {
  const i64 packed = padded_time(time) * d * 2, stride = score_stride(time);
  return static_cast<std::size_t>(2 * packed + kTileRows * (stride * 6 + d * 6) + 6 * 64);
}

void forward(HeadRows q, HeadRows k, HeadRows v, MutableHeadRows out, float* logsumexp, i64 time, i64 d, float scale,
             void* memory) {
  Scratch scratch{static_cast<char*>(memory)};
  const i64 padded = padded_time(time), stride = score_stride(time), words = d / 2;
  Word* k_panels = scratch.take<Word>(padded * words);
  Word* v_panels = scratch.take<Word>(padded * words);
  auto* scores = scratch.take<float>(kTileRows * stride);
  auto* weights = scratch.take<bf16>(kTileRows * stride);
  auto* queries = scratch.take<bf16>(kTileRows * d);
  auto* sums = scratch.take<float>(kTileRows * d);
  pack_transposed(k, time, d, k_panels);
  pack_pairs(v, time, d, v_panels);
  for (i64 begin = 0; begin < time; begin += kTileRows) {
    const i64 rows = smaller(kTileRows, time - begin), limit = smaller(padded, round_up(begin + kTileRows, kPanel));
    copy_rows(q, begin, rows, kTileRows, d, queries);
    multiply_rows(words_of(queries), words, k_panels, words * kPanel, words, limit, scores, stride);
    float inverse[kTileRows];
    for (i64 row = 0; row < kTileRows; ++row) {
      float maximum = 0.0F;
      const i64 keys = row < rows ? begin + row + 1 : 0;
      const float sum = softmax_row(scores + row * stride, keys, limit, scale, weights + row * stride, &maximum);
      inverse[row] = 1.0F / sum;
      if (row < rows) logsumexp[begin + row] = maximum + __builtin_logf(sum);
    }
    multiply_rows(words_of(weights), stride / 2, v_panels, padded / 2 * kPanel, limit / 2, d, sums, d);
    for (i64 row = 0; row < rows; ++row) {
      for (i64 c = 0; c < d; c += 16) {
        const __m512 normalised = _mm512_mul_ps(_mm512_loadu_ps(sums + row * d + c), _mm512_set1_ps(inverse[row]));
        store16(out.data + (begin + row) * out.stride + c, to_bf16(normalised));
      }
    }
  }
}

// The pieces of memory that backward works on.
struct BackwardMemory {
  Word *k_panels, *v_panels;      // transposed: B of q kᵀ and dout vᵀ
  Word* k_pairs;                  // B of dscores k
  float *dk, *dv;                 // (d, time) sums, rows `stride` apart
  float *scores, *dweights;       // (8, stride)
  bf16* dscores;                  // (8, stride)
  Word *weight_panels, *dscore_panels;  // (kPairs, time): B of the products for dv and dk
  bf16 *queries, *douts;          // (kQueryBlock, d)
  Word *queries_t, *douts_t;      // (d, kPairs): A of those products
  float* dq;                      // (8, d)
  float delta[kQueryBlock];       // sum of dout * out
};

std::size_t backward_scratch(i64 time, i64 d) {
  const i64 padded = padded_time(time), stride = score_stride(time);
  const i64 packed = 3 * padded * d * 2, sums = 2 * d * stride * 4, rows = kTileRows * (stride * 10 + d * 4);
  const i64 panels = 2 * kPairs * padded * 4, block = 4 * kQueryBlock * d * 2;
  return static_cast<std::size_t>(packed + sums + rows + panels + block + 16 * 64);
}

// Weights and gradients of scores of rows `row`, `row` + 1 of a tile; rows from `rows` on are zero.
void score_gradients(BackwardMemory& m, i64 row, i64 rows, i64 begin, i64 block_row, i64 limit, i64 stride, float scale,
                     const float* logsumexp) {
  const __m512 factor = _mm512_set1_ps(scale);
  __m512 log_sum[2], delta[2];
  i64 keys[2];
  for (i64 i = 0; i < 2; ++i) {
    const bool real = row + i < rows;
    keys[i] = real ? begin + row + i + 1 : 0;
    log_sum[i] = _mm512_set1_ps(real ? logsumexp[begin + row + i] : 0.0F);
    delta[i] = _mm512_set1_ps(real ? m.delta[block_row + row + i] : 0.0F);
  }
  const i64 pair_row = (block_row + row) / 2;
  for (i64 n = 0; n < limit; n += 16) {
    __m256i weight[2], dscore[2];
#pragma GCC unroll 2
    for (i64 i = 0; i < 2; ++i) {
      const float* score = m.scores + (row + i) * stride + n;
      const float* dweight = m.dweights + (row + i) * stride + n;
      const __mmask16 seen = keys_before(n, keys[i]);
      const __m512 p = _mm512_maskz_mov_ps(seen, exp16(_mm512_fmsub_ps(_mm512_loadu_ps(score), factor, log_sum[i])));
      const __m512 slope = _mm512_mul_ps(p, _mm512_mul_ps(factor, _mm512_sub_ps(_mm512_loadu_ps(dweight), delta[i])));
      weight[i] = to_bf16(p);
      dscore[i] = to_bf16(_mm512_maskz_mov_ps(seen, slope));
      store16(m.dscores + (row + i) * stride + n, dscore[i]);
    }
    const i64 at = (n / kPanel * kPairs + pair_row) * kPanel + n % kPanel;
    _mm512_storeu_si512(m.weight_panels + at, pair(weight[0], weight[1]));
    _mm512_storeu_si512(m.dscore_panels + at, pair(dscore[0], dscore[1]));
  }
}

// One block of queries of one head: writes its dq, adds to dk and dv.
void backward_block(BackwardMemory& m, HeadRows q, HeadRows out, HeadRows dout, const float* logsumexp, MutableHeadRows dq,
                    i64 begin, i64 time, i64 d, float scale) {
  const i64 padded = padded_time(time), stride = score_stride(time), words = d / 2;
  const i64 rows = smaller(kQueryBlock, time - begin);
  copy_rows(q, begin, rows, kQueryBlock, d, m.queries);
  copy_rows(dout, begin, rows, kQueryBlock, d, m.douts);
  for (i64 row = 0; row < rows; ++row) {
    __m512 sum = _mm512_setzero_ps();
    for (i64 c = 0; c < d; c += 16) {
      const __m512 value = widen(load16(out.data + (begin + row) * out.stride + c));
      sum = _mm512_fmadd_ps(widen(load16(m.douts + row * d + c)), value, sum);
    }
    m.delta[row] = _mm512_reduce_add_ps(sum);
  }
  for (i64 tile = 0; tile < rows; tile += kTileRows) {
    const i64 first = begin + tile, limit = smaller(padded, round_up(first + kTileRows, kPanel));
    multiply_rows(words_of(m.queries + tile * d), words, m.k_panels, words * kPanel, words, limit, m.scores, stride);
    multiply_rows(words_of(m.douts + tile * d), words, m.v_panels, words * kPanel, words, limit, m.dweights, stride);
    for (i64 row = 0; row < kTileRows; row += 2) {
      score_gradients(m, row, rows - tile, first, tile, limit, stride, scale, logsumexp);
    }
    multiply_rows(words_of(m.dscores), stride / 2, m.k_pairs, padded / 2 * kPanel, limit / 2, d, m.dq, d);
    for (i64 row = 0; row < smaller(kTileRows, rows - tile); ++row) {
      for (i64 c = 0; c < d; c += 16) {
        store16(dq.data + (first + row) * dq.stride + c, to_bf16(_mm512_loadu_ps(m.dq + row * d + c)));
      }
    }
  }
  pack_block_transposed(m.queries, d, m.queries_t);
  pack_block_transposed(m.douts, d, m.douts_t);
  const i64 pairs = round_up(rows, kTileRows) / 2;
  for (i64 key = 0; key < smaller(padded, begin + kQueryBlock); key += kPanel) {
    const i64 skipped = key > begin ? (key - begin) / 2 : 0;  // queries before these keys do not see them
    if (skipped >= pairs) break;
    const i64 at = (key / kPanel * kPairs + skipped) * kPanel;
    for (i64 c = 0; c < d; c += kTileRows) {
      multiply_tile<true>(m.douts_t + c * kPairs + skipped, kPairs, m.weight_panels + at, pairs - skipped,
                          m.dv + c * stride + key, stride);
      multiply_tile<true>(m.queries_t + c * kPairs + skipped, kPairs, m.dscore_panels + at, pairs - skipped,
                          m.dk + c * stride + key, stride);
    }
  }
}

void backward(HeadRows q, HeadRows k, HeadRows v, HeadRows out, HeadRows dout, const float* logsumexp, MutableHeadRows dq,
              MutableHeadRows dk, MutableHeadRows dv, i64 group, i64 time, i64 d, float scale, void* memory) {
  Scratch scratch{static_cast<char*>(memory)};
  const i64 padded = padded_time(time), stride = score_stride(time), words = d / 2;
  BackwardMemory m;
  m.k_panels = scratch.take<Word>(padded * words);
  m.v_panels = scratch.take<Word>(padded * words);
  m.k_pairs = scratch.take<Word>(padded * words);
  m.dk = scratch.take<float>(d * stride);
  m.dv = scratch.take<float>(d * stride);
  m.scores = scratch.take<float>(kTileRows * stride);
  m.dweights = scratch.take<float>(kTileRows * stride);
  m.dscores = scratch.take<bf16>(kTileRows * stride);
  m.weight_panels = scratch.take<Word>(kPairs * padded);
  m.dscore_panels = scratch.take<Word>(kPairs * padded);
  m.queries = scratch.take<bf16>(kQueryBlock * d);
  m.douts = scratch.take<bf16>(kQueryBlock * d);
  m.queries_t = scratch.take<Word>(kPairs * d);
  m.douts_t = scratch.take<Word>(kPairs * d);
  m.dq = scratch.take<float>(kTileRows * d);
  pack_transposed(k, time, d, m.k_panels);
  pack_transposed(v, time, d, m.v_panels);
  pack_pairs(k, time, d, m.k_pairs);
  for (i64 i = 0; i < d * stride; ++i) m.dk[i] = m.dv[i] = 0.0F;
  for (i64 head = 0; head < group; ++head) {
    const auto of_head = [&](HeadRows x) { return HeadRows{x.data + head * d, x.stride}; };
    for (i64 begin = 0; begin < time; begin += kQueryBlock) {
      backward_block(m, of_head(q), of_head(out), of_head(dout), logsumexp + head * time, {dq.data + head * d, dq.stride},
                     begin, time, d, scale);
    }
  }
  store_transposed(m.dk, stride, time, d, dk);
  store_transposed(m.dv, stride, time, d, dv);
}

}  // namespace

extern const AttentionKernels kAttentionKernels;
const AttentionKernels kAttentionKernels = {kPanel, &forward_scratch, &backward_scratch, &forward, &backward};

}  // namespace nanochat::ops::cpu::avx512bf16
