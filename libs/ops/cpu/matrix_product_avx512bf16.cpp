// See matrix_product.h.
#include "ops/cpu/matrix_product.h"

#include <immintrin.h>

namespace nanochat::ops::cpu::avx512bf16 {
namespace {

#include "ops/cpu/avx512.inc"

constexpr i64 kRows = 8;            // of a tile
constexpr i64 kVectors = 3;         // of 16 columns: 24 sums in registers, 11 loads for 24 products
constexpr i64 kStrip = 16 * kVectors;
constexpr i64 kGroup = 4 * kRows;   // rows that meet a strip of B while it is in the core's own cache
constexpr i64 kMostDepth = 768;     // of a packed block: a strip of B takes 72 KiB, a group of A 48 KiB
constexpr i64 kPair = 2;
// With a few rows the strip that follows is fetched while this one is multiplied: the processor's own prefetcher is not far
// enough ahead of its arithmetic. With fewer it is, and only helped a little.
constexpr i64 kManyRows = 4;
constexpr i64 kStream = 1536;       // numbers ahead, then

// Blocks of the depth are even, and of about the same size.
i64 block_depth(i64 depth) {
  const i64 blocks = (depth + kMostDepth - 1) / kMostDepth;
  return round_up((depth + blocks - 1) / blocks, kPair);
}
i64 strips_of(i64 n) { return (n + kStrip - 1) / kStrip; }

// ------------------------------------------------------------------------------------------------------------- packing
//
// Eight rows or columns of an operand as pairs: pair s of number i goes to to[(s * step + i) * 2].

// Transposes 8 x 16 pairs: for s < 4, out[s] holds pairs s and s + 4 of all eight rows, out[s + 4] pairs s + 8 and s + 12.
NANOCHAT_INLINE void transpose_pairs(const __m512i rows[8], __m512i out[8]) {
  __m512i a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);      // s 0 1 | 4 5 | 8 9 | 12 13
    a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);  // s 2 3 | 6 7 | ...
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m512i* x = a + 4 * half;
    b[4 * half] = _mm512_unpacklo_epi64(x[0], x[2]);      // s 0 of four rows | s 4 | s 8 | s 12
    b[4 * half + 1] = _mm512_unpackhi_epi64(x[0], x[2]);  // s 1 | 5 | 9 | 13
    b[4 * half + 2] = _mm512_unpacklo_epi64(x[1], x[3]);  // s 2 | 6 | ...
    b[4 * half + 3] = _mm512_unpackhi_epi64(x[1], x[3]);  // s 3 | 7 | ...
  }
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {
    const __m512i low = _mm512_shuffle_i64x2(b[s], b[s + 4], 0x44);   // s, s + 4 of rows 0-3 | s, s + 4 of rows 4-7
    const __m512i high = _mm512_shuffle_i64x2(b[s], b[s + 4], 0xee);  // s + 8, s + 12
    out[s] = _mm512_shuffle_i64x2(low, low, 0xd8);
    out[s + 4] = _mm512_shuffle_i64x2(high, high, 0xd8);
  }
}

// depth_inside: row i at data + i * stride.
void pack_inside(const bf16* data, i64 stride, i64 count, i64 depth, bf16* to, i64 step) {
  for (i64 p = 0; p < depth; p += 32) {
    const i64 left = depth - p;
    const __mmask32 mask = first32(left);
    __m512i rows[8], pairs[8];
#pragma GCC unroll 8
    for (i64 i = 0; i < 8; ++i) {
      rows[i] = i < count ? _mm512_maskz_loadu_epi16(mask, data + i * stride + p) : _mm512_setzero_si512();
    }
    transpose_pairs(rows, pairs);
    const i64 steps = smaller(16, (left + 1) / 2);
#pragma GCC unroll 16
    for (i64 s = 0; s < 16; ++s) {
      if (s >= steps) break;
      const __m512i from = pairs[(s & 3) + (s >= 8 ? 4 : 0)];
      store16(to + (p / 2 + s) * step * kPair,
              (s & 4) != 0 ? _mm512_extracti64x4_epi64(from, 1) : _mm512_castsi512_si256(from));
    }
  }
}

// Depth outside: number i of position p at data + p * stride + i. Takes 32 numbers, a line of the cache, at a time; each
// eight of them are `apart` from the next in `to`.
void pack_outside(const bf16* data, i64 stride, i64 count, i64 depth, bf16* to, i64 step, i64 apart) {
  const __mmask32 mask = first32(count);
  for (i64 p = 0; p < depth; p += kPair) {
    const __m512i x = _mm512_maskz_loadu_epi16(mask, data + p * stride);
    const __m512i y = p + 1 < depth ? _mm512_maskz_loadu_epi16(mask, data + (p + 1) * stride) : _mm512_setzero_si512();
    const __m512i low = _mm512_unpacklo_epi16(x, y), high = _mm512_unpackhi_epi16(x, y);  // the halves of each eight
    const __m512i front = _mm512_shuffle_i64x2(low, high, 0x44), back = _mm512_shuffle_i64x2(low, high, 0xee);
    const __m512i eights[2] = {_mm512_shuffle_i64x2(front, front, 0xd8), _mm512_shuffle_i64x2(back, back, 0xd8)};
    bf16* at = to + p * step;
#pragma GCC unroll 4
    for (i64 i = 0; i < 4; ++i) {
      if (8 * i >= count) break;
      store16(at + i * apart, i % 2 == 0 ? _mm512_castsi512_si256(eights[i / 2]) : _mm512_extracti64x4_epi64(eights[i / 2], 1));
    }
  }
}

// Eights of rows or columns [first, first + count) of an operand, positions [begin, begin + depth); what the last eight lacks
// is zero.
NANOCHAT_INLINE void pack_eights(const ProductOperand& x, i64 first, i64 count, i64 begin, i64 depth, bf16* to, i64 step,
                                 i64 apart) {
  if (x.depth_inside) {
    for (i64 i = 0; i < count; i += 8) {
      pack_inside(x.data + (first + i) * x.stride + begin, x.stride, smaller(8, count - i), depth, to + i / 8 * apart, step);
    }
    return;
  }
  for (i64 i = 0; i < count; i += 32) {
    pack_outside(x.data + begin * x.stride + first + i, x.stride, smaller(32, count - i), depth, to + i / 8 * apart, step,
                 apart);
  }
}

i64 packed_size(i64 n, i64 depth) { return strips_of(n) * kStrip * round_up(depth, kPair); }

// Block after block of the depth, strip after strip. With the depth outside some rows of memory go to all strips before the
// next ones are read.
void pack(const ProductOperand& b, i64 n, i64 depth, i64 first, i64 last, bf16* packed) {
  constexpr i64 kPositions = 32;
  const i64 block = block_depth(depth);
  for (i64 begin = 0; begin < depth; begin += block) {
    const i64 part = smaller(block, depth - begin), even = round_up(part, kPair);
    bf16* to = packed + begin * strips_of(n) * kStrip;
    const i64 piece = b.depth_inside ? part : kPositions;
    for (i64 p = 0; p < part; p += piece) {
      const i64 positions = smaller(piece, part - p);
      for (i64 s = first; s < last; ++s) {
        const i64 count = smaller(kStrip, n - s * kStrip);
        bf16* strip = to + s * kStrip * even + p * kStrip;
        // A vector of a tile may begin with the last eight: the other half of it is read too.
        if (count % 16 != 0 && count % 16 <= 8) {
          for (i64 q = 0; q < positions; q += kPair) store16(strip + q * kStrip + count / 16 * 32 + 16, _mm256_setzero_si256());
        }
        pack_eights(b, s * kStrip, count, begin + p, positions, strip, kStrip, 8 * kPair);
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------------------- a tile

// tile (8, 48) = kLeft rows of A times kColumns * 16 columns of B. Sums are the same however many rows there are. `ahead`: what
// will be wanted of B, fetched beside this. Null: nothing.
template <int kLeft, int kColumns>
NANOCHAT_INLINE void multiply_tile(const bf16* a, const bf16* b, i64 pairs, const bf16* ahead, float* tile) {
  __m512 sums[kLeft][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kLeft; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kColumns; ++v) sums[r][v] = _mm512_setzero_ps();
  }
  for (i64 s = 0; s < pairs; ++s) {
    __m512bh right[kColumns];
#pragma GCC unroll 3
    for (int v = 0; v < kColumns; ++v) right[v] = (__m512bh)_mm512_load_si512(b + 32 * v);
#pragma GCC unroll 8
    for (int r = 0; r < kLeft; ++r) {
      int pair;
      __builtin_memcpy(&pair, a + kPair * r, sizeof(pair));
      const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 3
      for (int v = 0; v < kColumns; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], left, right[v]);
    }
    a += kPair * kRows;
    b += kPair * kStrip;
    if (ahead != nullptr) {
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) _mm_prefetch(reinterpret_cast<const char*>(ahead + 32 * v), _MM_HINT_T1);
      ahead += kPair * kStrip;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kLeft; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kColumns; ++v) _mm512_store_ps(tile + r * kStrip + 16 * v, sums[r][v]);
  }
}

template <int kLeft>
void multiply_rows(const bf16* a, const bf16* b, i64 pairs, i64 columns, const bf16* ahead, float* tile) {
  if (columns > 32 && ahead != nullptr) return multiply_tile<kLeft, 3>(a, b, pairs, ahead, tile);
  if (columns > 32) return multiply_tile<kLeft, 3>(a, b, pairs, nullptr, tile);
  if (columns > 16) return multiply_tile<kLeft, 2>(a, b, pairs, nullptr, tile);
  multiply_tile<kLeft, 1>(a, b, pairs, nullptr, tile);
}

void multiply_any(const bf16* a, const bf16* b, i64 pairs, i64 rows, i64 columns, const bf16* ahead, float* tile) {
  switch (rows) {
    case 1: return multiply_rows<1>(a, b, pairs, columns, ahead, tile);
    case 2: return multiply_rows<2>(a, b, pairs, columns, ahead, tile);
    case 3: return multiply_rows<3>(a, b, pairs, columns, ahead, tile);
    case 4: return multiply_rows<4>(a, b, pairs, columns, ahead, tile);
    case 5: return multiply_rows<5>(a, b, pairs, columns, ahead, tile);
    case 6: return multiply_rows<6>(a, b, pairs, columns, ahead, tile);
    case 7: return multiply_rows<7>(a, b, pairs, columns, ahead, tile);
    default: return multiply_rows<8>(a, b, pairs, columns, ahead, tile);
  }
}

// ------------------------------------------------------------------------------------------------------------ the result

struct Tile {
  float* sums;  // (8, 48)
  i64 row, rows, column, columns;
};

// What the tile will be written over, on its way while the tile is multiplied.
NANOCHAT_INLINE void fetch_result(const Tile& tile, const ProductResult& c) {
  const i64 at = tile.row * c.stride + tile.column, size = c.sum != nullptr ? 4 : 2;
  const char* line = c.sum != nullptr ? reinterpret_cast<const char*>(c.sum + at)
                                      : reinterpret_cast<const char*>(c.rounded + at);
  for (i64 r = 0; r < tile.rows; ++r) {
    for (i64 byte = 0; byte < tile.columns * size; byte += 64) _mm_prefetch(line + byte, _MM_HINT_T0);
    line += c.stride * size;
  }
}

NANOCHAT_INLINE void add_to_sum(const Tile& tile, const ProductResult& c) {
  for (i64 r = 0; r < tile.rows; ++r) {
    float* to = c.sum + (tile.row + r) * c.stride + tile.column;
    for (i64 j = 0; j < tile.columns; j += 16) {
      const __mmask16 mask = first16(tile.columns - j);
      const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to + j), _mm512_load_ps(tile.sums + r * kStrip + j));
      _mm512_mask_storeu_ps(to + j, mask, sum);
    }
  }
}

// The mirror image of 8 x 16 numbers: column j of them becomes `rows` numbers at to + j * stride.
NANOCHAT_INLINE void store_mirrored(const __m256i rounded[8], bf16* to, i64 stride, i64 rows, i64 columns) {
  __m256i a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm256_unpacklo_epi16(rounded[2 * i], rounded[2 * i + 1]);  // columns 0-3 | 8-11, rows 2i 2i + 1
    a[i + 4] = _mm256_unpackhi_epi16(rounded[2 * i], rounded[2 * i + 1]);  // columns 4-7 | 12-15
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m256i* x = a + 4 * half;
    __m256i* y = b + 4 * half;
    const __m256i low0 = _mm256_unpacklo_epi32(x[0], x[1]), high0 = _mm256_unpackhi_epi32(x[0], x[1]);
    const __m256i low1 = _mm256_unpacklo_epi32(x[2], x[3]), high1 = _mm256_unpackhi_epi32(x[2], x[3]);
    y[0] = _mm256_unpacklo_epi64(low0, low1);
    y[1] = _mm256_unpackhi_epi64(low0, low1);
    y[2] = _mm256_unpacklo_epi64(high0, high1);
    y[3] = _mm256_unpackhi_epi64(high0, high1);
  }
  const __mmask8 mask = first8(rows);
#pragma GCC unroll 16
  for (int j = 0; j < 16; ++j) {
    if (j >= columns) break;
    const __m256i from = b[j % 8];
    _mm_mask_storeu_epi16(to + j * stride, mask, j < 8 ? _mm256_castsi256_si128(from) : _mm256_extracti128_si256(from, 1));
  }
}

NANOCHAT_INLINE void round_sums(const Tile& tile, const ProductResult& c) {
  const __m512 alpha = _mm512_set1_ps(c.alpha), beta = _mm512_set1_ps(c.beta);
  for (i64 j = 0; j < tile.columns; j += 16) {
    const __mmask16 mask = first16(tile.columns - j);
    __m256i rounded[8];
    for (i64 r = 0; r < kRows; ++r) {
      rounded[r] = _mm256_setzero_si256();
      if (r >= tile.rows) continue;
      const i64 at = (tile.row + r) * c.stride + tile.column + j;
      __m512 sum = _mm512_mul_ps(alpha, _mm512_load_ps(tile.sums + r * kStrip + j));
      if (c.addend != nullptr) sum = _mm512_fmadd_ps(beta, widen(_mm256_maskz_loadu_epi16(mask, c.addend + at)), sum);
      rounded[r] = to_bf16(sum);
      _mm256_mask_storeu_epi16(c.rounded + at, mask, rounded[r]);
    }
    if (c.symmetric) {
      store_mirrored(rounded, c.rounded + (tile.column + j) * c.stride + tile.row, c.stride, tile.rows, tile.columns - j);
    }
  }
}

// Of a depth in several blocks: what the earlier ones came to, in the scratch of the caller.
NANOCHAT_INLINE void add_earlier(const Tile& tile, float* earlier, bool first) {
  for (i64 i = 0; i < tile.rows * kStrip; i += 16) {
    const __m512 sum = _mm512_load_ps(tile.sums + i);
    _mm512_store_ps(earlier + i, first ? sum : _mm512_add_ps(_mm512_load_ps(earlier + i), sum));
  }
}

// -------------------------------------------------------------------------------------------------------------- blocks

constexpr i64 kTileNumbers = kRows * kStrip;

i64 scratch_bytes(i64 rows, i64 strips, i64 depth) {
  const i64 group = kGroup * block_depth(depth) * 2;
  const i64 earlier = depth > kMostDepth ? round_up(rows, kGroup) / kRows * strips * kTileNumbers * 4 : 0;
  return round_up(group, 64) + earlier + kTileNumbers * 4;
}

// Lines of memory that the next group of A will be packed from, fetched a few at a time while this one is multiplied: the
// processor does not see them coming where rows lie pages apart.
struct Ahead {
  const ProductOperand& a;
  i64 row, rows, begin, depth;  // none when rows is 0
  i64 next = 0;

  __attribute__((always_inline)) void fetch(i64 share, i64 of) {
    constexpr i64 kLine = 32;  // numbers of a line
    const i64 each = a.depth_inside ? (depth + kLine - 1) / kLine : 1,
              lines = rows == 0 ? 0 : each * (a.depth_inside ? rows : depth);
    const i64 end = lines * (share + 1) / of;
    for (; next < end; ++next) {
      const bf16* line = a.depth_inside ? a.data + (row + next / each) * a.stride + begin + next % each * kLine
                                        : a.data + (begin + next) * a.stride + row;
      _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1);
    }
  }
};

void multiply(const ProductOperand& a, const bf16* packed, i64 n, i64 depth, i64 row, i64 row_end, i64 first, i64 last,
              const ProductResult& c, void* scratch) {
  const i64 block = block_depth(depth), strips = last - first;
  auto* group = static_cast<bf16*>(scratch);
  auto* sums = reinterpret_cast<float*>(group + round_up(kGroup * block, 32));
  float* earlier = sums + kTileNumbers;
  for (i64 begin = 0; begin < depth; begin += block) {
    const i64 part = smaller(block, depth - begin), even = round_up(part, kPair);
    const bf16* right = packed + begin * strips_of(n) * kStrip;
    const bool last_block = begin + block >= depth;
    for (i64 r = row; r < row_end; r += kGroup) {
      const i64 group_end = smaller(r + kGroup, row_end);
      pack_eights(a, r, group_end - r, begin, part, group, kRows, kRows * even);
      const i64 tiles = (group_end - r + kRows - 1) / kRows * strips;
      Ahead left_ahead{a, group_end, smaller(kGroup, row_end - group_end), begin, part};
      i64 done = 0;
      for (i64 s = first; s < last; ++s) {
        const i64 column = s * kStrip, columns = smaller(kStrip, n - column);
        for (i64 t = r; t < group_end; t += kRows) {
          left_ahead.fetch(done++, tiles);
          if (c.symmetric && column >= t + kRows) continue;
          const Tile tile{sums, t, smaller(kRows, row_end - t), column, columns};
          fetch_result(tile, c);
          const bf16* strip = right + column * even;
          const bf16* ahead = t == r ? strip + (tile.rows >= kManyRows ? kStrip * even : kStream) : nullptr;
          multiply_any(group + (t - r) * even, strip, even / kPair, tile.rows, columns, ahead, sums);
          if (c.sum != nullptr) {
            add_to_sum(tile, c);
            continue;
          }
          if (depth > block) {
            float* before = earlier + ((t - row) / kRows * strips + s - first) * kTileNumbers;
            add_earlier(tile, before, begin == 0);
            if (!last_block) continue;
            round_sums({before, tile.row, tile.rows, tile.column, tile.columns}, c);
          } else {
            round_sums(tile, c);
          }
        }
      }
    }
  }
}

}  // namespace

extern const ProductKernels kProductKernels;
const ProductKernels kProductKernels = {kStrip, kGroup, kMostDepth, &packed_size, &pack, &scratch_bytes, &multiply};

}  // namespace nanochat::ops::cpu::avx512bf16
