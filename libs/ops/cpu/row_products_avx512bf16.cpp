// Products and attention of few rows for AVX512-BF16: see row_products.h.
#include <immintrin.h>

#include "ops/cpu/row_products.h"

namespace nanochat::ops::cpu::avx512bf16 {
namespace {

#include "ops/cpu/avx512.inc"

constexpr i64 kTile = 4;                 // rows of x times rows of w in registers: 16 sums
constexpr i64 kBlockBytes = 96 << 10;    // of w, which all rows of x meet while they are in the core's own cache
constexpr i64 kPanelBytes = 384 << 10;   // of x
constexpr i64 kLine = 64;

NANOCHAT_INLINE __m512bh load32(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }
NANOCHAT_INLINE __m512bh load_some(const bf16* p, __mmask32 mask) { return (__m512bh)_mm512_maskz_loadu_epi16(mask, p); }

// The sums of 16 vectors, always in the same order.
NANOCHAT_INLINE __m512 sums_of(const __m512 v[16]) {
  __m512 quads[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512* x = v + 4 * i;
    const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    const __m512d ad = _mm512_castps_pd(a), bd = _mm512_castps_pd(b);
    quads[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ad, bd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ad, bd)));
  }
  const auto fold = [](__m512 a, __m512 b) __attribute__((always_inline)) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  return fold(fold(quads[0], quads[1]), fold(quads[2], quads[3]));
}

// Weights that will be wanted, fetched line by line beside the products that do without them.
struct Fetch {
  const char* next;
  const char* end;
};

// kRows rows of x times four rows of w, of which the first `columns` count; fetches kLines lines every 64 columns of x.
template <int kRows, int kLines>
NANOCHAT_INLINE void multiply_tile(const bf16* x, i64 ldx, const bf16* w, i64 ldw, i64 columns, i64 n, bf16* y, i64 ldy,
                                   Fetch& fetch) {
  __m512 sums[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) sums[i] = _mm512_setzero_ps();
  const bf16* rows[kTile];
  for (i64 c = 0; c < kTile; ++c) rows[c] = w + smaller(c, columns - 1) * ldw;
  const char* line = fetch.next;
  i64 i = 0;
  for (; i + 32 <= n; i += 32) {
    __m512bh b[kTile];
#pragma GCC unroll 4
    for (int c = 0; c < kTile; ++c) b[c] = load32(rows[c] + i);
    if (kLines > 0 && i % 64 == 0) {
#pragma GCC unroll 4
      for (int j = 0; j < kLines; ++j) _mm_prefetch(line + j * kLine, _MM_HINT_T1);
      line += kLines * kLine;
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512bh a = load32(x + r * ldx + i);
#pragma GCC unroll 4
      for (int c = 0; c < kTile; ++c) sums[4 * r + c] = _mm512_dpbf16_ps(sums[4 * r + c], a, b[c]);
    }
  }
  fetch.next = line;
  if (i < n) {
    const __mmask32 mask = first32(n - i);
    for (int r = 0; r < kRows; ++r) {
      const __m512bh a = load_some(x + r * ldx + i, mask);
      for (int c = 0; c < kTile; ++c) {
        sums[4 * r + c] = _mm512_dpbf16_ps(sums[4 * r + c], a, load_some(rows[c] + i, mask));
      }
    }
  }
  alignas(32) bf16 rounded[16];
  store16(rounded, to_bf16(sums_of(sums)));
  for (i64 r = 0; r < kRows; ++r) {
    if (columns == kTile) {
      __builtin_memcpy(y + r * ldy, rounded + kTile * r, kTile * sizeof(bf16));
    } else {
      for (i64 c = 0; c < columns; ++c) y[r * ldy + c] = rounded[kTile * r + c];
    }
  }
}

template <int kRows, int kLines>
void multiply_block(const bf16* x, i64 ldx, const bf16* w, i64 ldw, i64 columns, i64 n, bf16* y, i64 ldy, Fetch& fetch) {
  for (i64 c = 0; c < columns; c += kTile) {
    multiply_tile<kRows, kLines>(x, ldx, w + c * ldw, ldw, smaller(kTile, columns - c), n, y + c, ldy, fetch);
  }
}

template <int kLines>
void multiply_rows(const bf16* x, i64 ldx, i64 rows, const bf16* w, i64 ldw, i64 columns, i64 n, bf16* y, i64 ldy,
                   Fetch& fetch) {
  switch (rows) {
    case 1: return multiply_block<1, kLines>(x, ldx, w, ldw, columns, n, y, ldy, fetch);
    case 2: return multiply_block<2, kLines>(x, ldx, w, ldw, columns, n, y, ldy, fetch);
    case 3: return multiply_block<3, kLines>(x, ldx, w, ldw, columns, n, y, ldy, fetch);
    default: return multiply_block<4, kLines>(x, ldx, w, ldw, columns, n, y, ldy, fetch);
  }
}

// Four rows of x at most read w once, from the first byte to the last: the processor's own prefetcher keeps ahead of that
// as of no other order (55 GB/s where tiles of four rows of w got 21).
template <int kRows>
void stream_rows(const bf16* x, i64 ldx, const bf16* w, i64 ldw, i64 columns, i64 n, bf16* y, i64 ldy) {
  constexpr i64 kColumns = 16 / kRows;
  const __mmask32 mask = first32(n % 32);
  for (i64 c = 0; c < columns; c += kColumns) {
    __m512 sums[16];
    const i64 count = smaller(kColumns, columns - c);
    for (i64 j = 0; j < kColumns; ++j) {
      const bf16* row = w + (c + smaller(j, count - 1)) * ldw;
      __m512 sum[kRows];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sum[r] = _mm512_setzero_ps();
      i64 i = 0;
      for (; i + 32 <= n; i += 32) {
        const __m512bh b = load32(row + i);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sum[r] = _mm512_dpbf16_ps(sum[r], load32(x + r * ldx + i), b);
      }
      if (i < n) {
        const __m512bh b = load_some(row + i, mask);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sum[r] = _mm512_dpbf16_ps(sum[r], load_some(x + r * ldx + i, mask), b);
      }
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[r * kColumns + j] = sum[r];
    }
    for (i64 i = kRows * kColumns; i < 16; ++i) sums[i] = _mm512_setzero_ps();
    alignas(32) bf16 rounded[16];
    store16(rounded, to_bf16(sums_of(sums)));
    const auto bytes = static_cast<std::size_t>(count) * sizeof(bf16);
    for (i64 r = 0; r < kRows; ++r) __builtin_memcpy(y + r * ldy + c, rounded + r * kColumns, bytes);
  }
}

void linear(const bf16* x, i64 ldx, i64 rows, const bf16* w, i64 ldw, i64 columns, i64 n, bf16* y, i64 ldy) {
  switch (rows) {
    case 1: return stream_rows<1>(x, ldx, w, ldw, columns, n, y, ldy);
    case 2: return stream_rows<2>(x, ldx, w, ldw, columns, n, y, ldy);
    case 3: return stream_rows<3>(x, ldx, w, ldw, columns, n, y, ldy);
    case 4: return stream_rows<4>(x, ldx, w, ldw, columns, n, y, ldy);
    default: break;
  }
  // Rows of x that stay in the core's own cache beside the block of w.
  const i64 panel = round_up(kPanelBytes / (2 * n) + 1, 4 * kTile);
  if (rows > panel) {
    for (i64 r = 0; r < rows; r += panel) {
      linear(x + r * ldx, ldx, smaller(panel, rows - r), w, ldw, columns, n, y + r * ldy, ldy);
    }
    return;
  }
  const i64 most = round_up(smaller(kBlockBytes / (2 * n) + 1, columns), kTile);
  for (i64 c = 0; c < columns; c += most) {
    const i64 block = smaller(most, columns - c);
    const auto* ahead = reinterpret_cast<const char*>(w + (c + block) * ldw);
    Fetch fetch{ahead, ahead};
    for (i64 r = 0; r < rows; r += kTile) {
      const auto multiply = rows <= 12   ? (r < 2 * kTile ? &multiply_rows<4> : &multiply_rows<0>)
                            : rows <= 28 ? (r < 4 * kTile ? &multiply_rows<2> : &multiply_rows<0>)
                                         : (r < 8 * kTile ? &multiply_rows<1> : &multiply_rows<0>);
      multiply(x + r * ldx, ldx, smaller(kTile, rows - r), w + c * ldw, ldw, block, n, y + r * ldy + c, ldy, fetch);
    }
  }
}

// Where a position of a head lies; blocks of a power of two.
struct Positions {
  i64 operator()(i64 key) const {
    const i64 position = key + head.first, block = position >> shift;
    return head.blocks[block] * head.block_stride + (position - (block << shift)) * head.row_stride;
  }
  const PagedHead<bf16>& head;
  i64 shift;
};

// The row that comes kAhead positions later, or the last one: blocks lie apart, so the processor does not see it coming. Into
// the second cache: the first can wait for too few lines at a time to keep the memory busy.
constexpr i64 kAhead = 16;
NANOCHAT_INLINE void fetch_ahead(const bf16* rows, const Positions& at, i64 key, i64 keys, i64 d) {
  const auto* line = reinterpret_cast<const char*>(rows + at(smaller(key + kAhead, keys - 1)));
  for (i64 byte = 0; byte < 2 * d; byte += kLine) _mm_prefetch(line + byte, _MM_HINT_T1);
}

// scores[r * stride + key] = q[r] · k of the first `keys` positions; up to 15 more behind them are written.
template <int kRows>
void score_keys(const bf16* q, i64 ldq, const Positions& at, float* scores, i64 stride, i64 keys, i64 d) {
  constexpr int kKeys = 16 / kRows;
  for (i64 key = 0; key < keys; key += kKeys) {
    __m512 sums[16];
    const bf16* rows[kKeys];
    for (i64 i = 0; i < kKeys; ++i) {  // the last key stands for those beyond it
      rows[i] = at.head.keys + at(smaller(key + i, keys - 1));
      fetch_ahead(at.head.keys, at, key + i, keys, d);
    }
    if constexpr (kRows == 1) {
      for (i64 i = 0; i < kKeys; ++i) {
        __m512 sum = _mm512_setzero_ps();
        for (i64 c = 0; c < d; c += 32) sum = _mm512_dpbf16_ps(sum, load32(q + c), load32(rows[i] + c));
        sums[i] = sum;
      }
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) sums[i] = _mm512_setzero_ps();
      for (i64 c = 0; c < d; c += 32) {
        __m512bh k[kKeys];
#pragma GCC unroll 4
        for (int i = 0; i < kKeys; ++i) k[i] = load32(rows[i] + c);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const __m512bh query = load32(q + r * ldq + c);
#pragma GCC unroll 4
          for (int i = 0; i < kKeys; ++i) sums[r * kKeys + i] = _mm512_dpbf16_ps(sums[r * kKeys + i], query, k[i]);
        }
      }
    }
    alignas(64) float found[16];
    _mm512_store_ps(found, sums_of(sums));
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) __builtin_memcpy(scores + r * stride + key, found + r * kKeys, kKeys * sizeof(float));
  }
}

// exp(scale * (score - their maximum)); returns 1 / the sum.
float softmax_weights(float* scores, i64 keys, float scale) {
  __m512 highest = _mm512_set1_ps(-3.4e38F);
  for (i64 key = 0; key < keys; key += 16) {
    highest = _mm512_mask_max_ps(highest, first16(keys - key), highest, _mm512_loadu_ps(scores + key));
  }
  const __m512 factor = _mm512_set1_ps(scale), shift = _mm512_set1_ps(_mm512_reduce_max_ps(highest) * scale);
  __m512 total = _mm512_setzero_ps();
  for (i64 key = 0; key < keys; key += 16) {
    const __m512 weight = _mm512_maskz_mov_ps(first16(keys - key),
                                              exp16(_mm512_fmsub_ps(_mm512_loadu_ps(scores + key), factor, shift)));
    _mm512_storeu_ps(scores + key, weight);
    total = _mm512_add_ps(total, weight);
  }
  return 1.0F / _mm512_reduce_add_ps(total);
}

// y[r] = inverse[r] * sum of weights[r][key] * v over the first keys + r positions, of kVectors * 16 channels.
template <int kRows, int kVectors>
void sum_values(const float* weights, i64 stride, const Positions& at, i64 channel, i64 keys, const float* inverse, bf16* y,
                i64 ldy) {
  __m512 sums[kRows][kVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) sums[r][i] = _mm512_setzero_ps();
  }
  for (i64 key = 0; key < keys; ++key) {
    const bf16* row = at.head.values + at(key) + channel;
    fetch_ahead(at.head.values + channel, at, key, keys, 16 * kVectors);
    __m512 v[kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) v[i] = widen(load16(row + 16 * i));
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m512 weight = _mm512_set1_ps(weights[r * stride + key]);
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) sums[r][i] = _mm512_fmadd_ps(weight, v[i], sums[r][i]);
    }
  }
  // What later queries see besides; not as weights of 0 for the earlier ones, whom an infinity there would reach.
#pragma GCC unroll 4
  for (int later = 1; later < kRows; ++later) {
    const bf16* row = at.head.values + at(keys + later - 1) + channel;
#pragma GCC unroll 4
    for (int r = later; r < kRows; ++r) {
      const __m512 weight = _mm512_set1_ps(weights[r * stride + keys + later - 1]);
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) sums[r][i] = _mm512_fmadd_ps(weight, widen(load16(row + 16 * i)), sums[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      store16(y + r * ldy + channel + 16 * i, to_bf16(_mm512_mul_ps(sums[r][i], _mm512_set1_ps(inverse[r]))));
    }
  }
}

// kRows queries of positions that follow each other; the first sees `keys` positions.
template <int kRows>
void attend_tile(const bf16* q, i64 ldq, const Positions& at, bf16* y, i64 ldy, float* scores, i64 stride, i64 keys, i64 d,
                 float scale) {
  constexpr int kVectors = kRows == 1 ? 8 : 4;
  score_keys<kRows>(q, ldq, at, scores, stride, keys + kRows - 1, d);
  float inverse[kRows];
  for (i64 r = 0; r < kRows; ++r) inverse[r] = softmax_weights(scores + r * stride, keys + r, scale);
  i64 channel = 0;
  for (; channel + 16 * kVectors <= d; channel += 16 * kVectors) {
    sum_values<kRows, kVectors>(scores, stride, at, channel, keys, inverse, y, ldy);
  }
  if constexpr (kRows == 1) {
    for (; channel + 64 <= d; channel += 64) sum_values<1, 4>(scores, stride, at, channel, keys, inverse, y, ldy);
  }
  for (; channel < d; channel += 32) sum_values<kRows, 2>(scores, stride, at, channel, keys, inverse, y, ldy);
}

void attend(const bf16* q, i64 ldq, i64 queries, const PagedHead<bf16>& head, bf16* y, i64 ldy, float* scratch, i64 keys, i64 d,
            float scale) {
  const Positions at{head, __builtin_ctzll(static_cast<unsigned long long>(head.block_size))};
  const i64 stride = round_up(keys + queries + 16, 16);
  i64 query = 0;
  for (; query + kTile <= queries; query += kTile) {
    attend_tile<kTile>(q + query * ldq, ldq, at, y + query * ldy, ldy, scratch, stride, keys + query, d, scale);
  }
  for (; query < queries; ++query) {
    attend_tile<1>(q + query * ldq, ldq, at, y + query * ldy, ldy, scratch, stride, keys + query, d, scale);
  }
}

}  // namespace

extern const RowKernels<bf16> kRowKernels;
const RowKernels<bf16> kRowKernels = {&linear, &attend, 32};

}  // namespace nanochat::ops::cpu::avx512bf16
