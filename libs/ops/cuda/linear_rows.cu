// Products of a few rows with a matrix of weights, which are bound by reading the weights. Each number is read once, 16
// bytes at a time, straight into the registers that tensor cores take it from: a sum does not care in which order its terms
// come, so the sixteen numbers that a lane reads in a row of the weights become its share of four products, and the same
// sixteen of a row of x the other factor.
//
// A block of threads takes a few columns of y; its warps share out the inner dimension and their sums are added up in the
// order of the warps. That order depends on the inner dimension alone, and rows are the rows of the products' left factor:
// a row comes out the same whatever rows stand beside it and however many.

#include <algorithm>
#include <limits>

#include "bulk_copies.cuh"
#include "device_code.cuh"
#include "tensor_cores.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kStep = 64;    // of the inner dimension, that a warp takes at a time: 16 numbers for each lane of a quad
constexpr int kAtOnce = 4;   // such steps whose loads are under way together

// 8 numbers of bfloat16, not kept in the first-level cache when they are read once.
__device__ inline uint4 load_once(const bf16* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// Sixteen numbers: what a lane has of a row in a step, 8 of its first half and 8 of its second. The lanes of a quad read
// neighbouring ones.
struct Lane16 {
  u32 pair[8];
};
template <bool kOnce>
__device__ inline Lane16 load16(const bf16* row, int k, int end, bool inside) {
  Lane16 lane = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!inside || k + kStep / 2 * half >= end) continue;
    const bf16* from = row + k + kStep / 2 * half;
    const uint4 v = kOnce ? load_once(from) : *reinterpret_cast<const uint4*>(from);
    lane.pair[4 * half] = v.x;
    lane.pair[4 * half + 1] = v.y;
    lane.pair[4 * half + 2] = v.z;
    lane.pair[4 * half + 3] = v.w;
  }
  return lane;
}

// What stands behind the sum. before: what y held, where p.add says so.
template <class T>
__device__ inline void finish(const LinearRows& p, float sum, float squares, float before, T& y) {
  if (p.norm_eps >= 0.0F) sum *= rsqrtf(squares * p.inverse_k + p.norm_eps);
  if (p.relu_squared) sum = sum < 0.0F ? 0.0F : sum * sum;  // keeps a NaN
  if (p.add) sum += before;
  from_float(sum, y);
}
template <class T>
__device__ inline void finish(const LinearRows& p, float sum, float squares, int row, int column) {
  T& y = static_cast<T*>(p.y)[row * p.y_stride + column];
  finish(p, sum, squares, p.add ? to_float(y) : 0.0F, y);
}

__device__ inline float squares_of(u32 pair) {
  const float low = __uint_as_float(pair << 16), high = __uint_as_float(pair & 0xffff0000U);
  return low * low + high * high;
}
__device__ inline float squares_of(const Lane16& lane) {
  float sum = 0.0F;
#pragma unroll
  for (const u32 pair : lane.pair) sum += squares_of(pair);
  return sum;
}

// kTiles: tiles of 16 rows; kColumns: tiles of 8 columns of a block.
template <int kTiles, int kColumns, bool kNormalise>
__global__ void __launch_bounds__(kThreads) linear_rows_bf16(const __grid_constant__ LinearRows p) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int quad_row = lane / 4, quad = lane % 4;
  const int first = static_cast<int>(blockIdx.x) * 8 * kColumns;
  const int steps = (p.k + kStep - 1) / kStep;
  const auto* const x = static_cast<const bf16*>(p.x);
  const auto* const w = static_cast<const bf16*>(p.w);
  float sums[kTiles][kColumns][4] = {}, squares[kTiles][2] = {};
  Lane16 weights[kAtOnce][kColumns];
  const auto load_weights = [&](int step) {
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      const int k = (step + a * kWarps) * kStep + 8 * quad;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = first + 8 * c + quad_row;
        weights[a][c] = load16<true>(w + column * p.w_stride, k, p.k, column < p.m);
      }
    }
  };
  let_next_begin();
  load_weights(warp);
  wait_for_previous();
  for (int step = warp; step < steps; step += kWarps * kAtOnce) {
    if (step != warp) load_weights(step);
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      if (step + a * kWarps >= steps) break;
      const int k = (step + a * kWarps) * kStep + 8 * quad;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int row = 16 * t + quad_row;
        const Lane16 upper = load16<false>(x + row * p.x_stride, k, p.k, row < p.rows);
        const Lane16 lower = load16<false>(x + (row + 8) * p.x_stride, k, p.k, row + 8 < p.rows);
        if constexpr (kNormalise) {
          squares[t][0] += squares_of(upper);
          squares[t][1] += squares_of(lower);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const u32 left[4] = {upper.pair[2 * i], lower.pair[2 * i], upper.pair[2 * i + 1], lower.pair[2 * i + 1]};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            multiply_add(sums[t][c], left, weights[a][c].pair[2 * i], weights[a][c].pair[2 * i + 1]);
          }
        }
      }
    }
  }

  constexpr int kRows = 16 * kTiles, kWidth = 8 * kColumns;
  __shared__ float partial[kWarps][kRows][kWidth];
  __shared__ float partial_squares[kWarps][kRows];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = 16 * t + quad_row + 8 * half;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        *reinterpret_cast<float2*>(&partial[warp][row][8 * c + 2 * quad]) = make_float2(sums[t][c][2 * half],
                                                                                        sums[t][c][2 * half + 1]);
      }
      if constexpr (kNormalise) {
        float sum = squares[t][half];
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        if (quad == 0) partial_squares[warp][row] = sum;
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kWidth; i += kThreads) {
    const int row = i / kWidth, column = i % kWidth;
    if (row >= p.rows || first + column >= p.m) continue;
    float sum = 0.0F, square = 0.0F;
#pragma unroll
    for (int other = 0; other < kWarps; ++other) {
      sum += partial[other][row][column];
      if constexpr (kNormalise) square += partial_squares[other][row];
    }
    finish<bf16>(p, sum, square, row, first + column);
  }
}

// ------------------------------------------------------------------------------------------------------- Hopper
// From compute capability 9.0 on, weights go to shared memory by bulk copies, which start before the kernel in front of this
// one has ended. A block uses at most half of the shared memory and of the registers of a multiprocessor wherever its weights
// fit. Blocks of two kernels of the chain then share a multiprocessor: one kernel reads its weights while the other computes.
//
// A block has some columns of y (at most 16 * kTiles at a time) and a slice of the inner dimension. Its warps take blocks of
// kBlock numbers of the slice in turn. Columns of y are the rows of the products' left factor, rows of x the columns of the
// right one. Each warp reads its own part of x straight into registers. Where there are several slices, their blocks are a
// cluster; each stores its sums in the block that adds them up, in the order of the slices.
//
// The order of a sum depends on the shape of the weights alone: block by block in a warp, then the warps, then the slices.

constexpr int kBlock = 32;      // of the inner dimension, that a warp takes at a time: 8 numbers for each lane of a quad
constexpr int kMostBlocks = 6;  // of a slice that one warp takes
constexpr int kMostSlice = kMostBlocks * kWarps * kBlock;  // 1536
constexpr int kMostSlices = 8;                             // blocks of a cluster
constexpr int kMostTiles = 3;                              // of 16 columns, that a block takes at a time
constexpr int kMostSlots = 5;

struct Division {
  std::int32_t slices, slice;  // parts of the inner dimension, and numbers in each but the last
  std::int32_t slices_shift;   // logarithm of `slices`
  std::int32_t columns;        // of y that a block takes at a time
  std::int32_t groups;         // such columns, in all
  std::int32_t slots;          // groups whose weights have room in shared memory
  std::int32_t copying_warps;  // that start the copies of weights
};

// What a block has in shared memory: where it begins, in bytes.
struct StagedLayout {
  int pitch;         // from one column's weights to the next one's: an odd number of half lines of banks
  int slot;          // bytes of a slot; the slots come first
  int partial;       // float2 (warps, kCount): sums of each warp, in the order of a warp's registers
  int landing;       // float2 (2, slices, kCount / slices): the slices' sums of what this block adds up, for one group of
                     // columns and the next
  int squares;       // float (rows, warps)
  int all_squares;   // float (slices, rows)
  int barriers;      // (slots); then two for what lands here
  int bytes;
};

template <int kTiles, int kRowTiles, bool kStreaming>
struct Staged {
  static constexpr int kRows = 8 * kRowTiles;
  static constexpr int kCount = kTiles * kRowTiles * 64;  // pairs of sums
  static constexpr int kPartialBytes = kWarps * kCount * static_cast<int>(sizeof(float2));

  __host__ __device__ static StagedLayout layout(const Division& d) {
    StagedLayout l = {};
    const int bytes = (d.slice + kBlock - 1) / kBlock * kBlock * static_cast<int>(sizeof(bf16));
    l.pitch = bytes % 128 == 64 ? bytes : bytes + 64;
    l.slot = d.columns * l.pitch;
    int end = d.slots * l.slot;
    // Without another group of columns behind this one, the sums take the place of the weights.
    l.partial = kStreaming ? end : 0;
    end = kStreaming ? end + kPartialBytes : (end > kPartialBytes ? end : kPartialBytes);
    l.landing = end;
    if (d.slices > 1) end += (kStreaming ? 2 : 1) * kCount * static_cast<int>(sizeof(float2));
    l.squares = end;
    end += kRows * kWarps * static_cast<int>(sizeof(float));
    l.all_squares = end;
    if (d.slices > 1) end += d.slices * kRows * static_cast<int>(sizeof(float));
    l.barriers = end;
    l.bytes = end + (d.slots + 2) * static_cast<int>(sizeof(std::uint64_t));
    return l;
  }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// Sums of squares and of warps are added up in pairs: one addition after the other would be waited for.
__device__ inline float squares_of(const uint4& pairs) {
  return (squares_of(pairs.x) + squares_of(pairs.y)) + (squares_of(pairs.z) + squares_of(pairs.w));
}
__device__ inline float sum_of(const float4& x) { return (x.x + x.y) + (x.z + x.w); }
#endif

// kTiles: tiles of 16 columns that are taken together; kRowTiles: tiles of 8 rows; kStreaming: groups of columns come one
// after the other, through the slots.
template <int kTiles, int kRowTiles, bool kStreaming>
__global__ void __launch_bounds__(kThreads, kRowTiles == 1                ? 3
                                            : kStreaming && kRowTiles > 2 ? 1
                                                                          : 2)
    linear_rows_staged(const __grid_constant__ LinearRows p, const __grid_constant__ Division division) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  using Kind = Staged<kTiles, kRowTiles, kStreaming>;
  constexpr int kRows = Kind::kRows, kCount = Kind::kCount;
  // Blocks of x of each warp in registers at a time: all of them, or as many as leave room for a second block of threads.
  constexpr int kDepth = kStreaming || kRowTiles <= 2 ? kMostBlocks : kTiles <= 2 ? 3 : 2;
  constexpr int kShare = (kCount + kThreads - 1) / kThreads;  // pairs of sums of a thread
  extern __shared__ __align__(128) unsigned char shared[];
  const StagedLayout layout = Kind::layout(division);
  auto* const partial = reinterpret_cast<float2*>(shared + layout.partial);
  auto* const landing = reinterpret_cast<float2*>(shared + layout.landing);
  auto* const squares = reinterpret_cast<float*>(shared + layout.squares);
  auto* const all_squares = reinterpret_cast<float*>(shared + layout.all_squares);
  auto* const barriers = reinterpret_cast<std::uint64_t*>(shared + layout.barriers);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int quad_row = lane / 4, quad = lane % 4;
  const int slices = division.slices, rank = static_cast<int>(blockIdx.y);
  const int first_k = rank * division.slice, length = min(division.slice, p.k - first_k);
  const int groups = division.groups, stride = static_cast<int>(gridDim.x);
  const bool normalise = p.norm_eps >= 0.0F;
  const int x_stride = static_cast<int>(p.x_stride), y_stride = static_cast<int>(p.y_stride);
  const auto* const x = static_cast<const bf16*>(p.x) + first_k;
  const auto* const w = static_cast<const bf16*>(p.w) + first_k;
  auto* const y = static_cast<bf16*>(p.y);

  // By all threads: the weights of a group of columns.
  const auto begin_copies = [&](int slot, int group) {
    const int first = group * division.columns, count = min(division.columns, p.m - first);
    const u32 bytes = static_cast<u32>(length) * sizeof(bf16);
    if (thread == 0) expect_bytes(barriers + slot, static_cast<u32>(count) * bytes);
    if (warp >= division.copying_warps) return;
#pragma unroll 1
    for (int column = lane * division.copying_warps + warp; column < count; column += 32 * division.copying_warps) {
      copy_bulk(shared + slot * layout.slot + column * layout.pitch, w + (first + column) * p.w_stride, bytes, barriers + slot);
    }
  };

  let_next_begin();
  if (thread == 0) {
#pragma unroll 1
    for (int barrier = 0; barrier < division.slots + 2; ++barrier) init_barrier(barriers + barrier);
    publish_barriers();
  }
  __syncthreads();
#pragma unroll 1
  for (int slot = 0; slot < division.slots; ++slot) {
    const int group = static_cast<int>(blockIdx.x) + slot * stride;
    if (group < groups) begin_copies(slot, group);
  }
  if (slices > 1) arrive_cluster();  // this block's shared memory may be stored to
  wait_for_previous();

  uint4 xs[kDepth][kRowTiles];
  const auto load_x = [&](int j, uint4(&to)[kRowTiles]) {
    const int k = kBlock * (warp + j * kWarps) + 8 * quad;
#pragma unroll
    for (int n = 0; n < kRowTiles; ++n) {
      const int row = 8 * n + quad_row;
      to[n] = make_uint4(0, 0, 0, 0);
      if (row < p.rows && k < length) to[n] = __ldcg(reinterpret_cast<const uint4*>(x + row * x_stride + k));
    }
  };
#pragma unroll
  for (int j = 0; j < kDepth; ++j) load_x(j, xs[j]);

  // A pair of sums is of one column and two neighbouring rows. This block finishes `share` of them, from `own` on.
  const int share = kCount >> division.slices_shift, own = rank * share;
  const auto column_of = [](int pair) { return pair / (64 * kRowTiles) * 16 + pair / 32 % 2 * 8 + pair % 32 / 4; };
  const auto row_of = [](int pair) { return pair / 64 % kRowTiles * 8 + pair % 4 * 2; };

  int slot = 0, pass = 0;
  u32 parity = 0;
  for (int group = static_cast<int>(blockIdx.x); group < groups; group += stride, ++pass) {
    const int first = group * division.columns, count = min(division.columns, p.m - first);
    // Calls body(pair of this thread, which of the pair, element of y) for what this thread finishes.
    const auto for_each_own = [&](const auto& body) {
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        const int at = thread + i * kThreads, column = column_of(own + at), row = row_of(own + at);
        if (at >= share || column >= count) continue;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (row + r < p.rows) body(i, r, y + (row + r) * y_stride + first + column);
        }
      }
    };
    float before[kShare][2] = {};
    if (p.add) for_each_own([&](int i, int r, const bf16* to) { before[i][r] = to_float(__ldcg(to)); });

    // Pairs of sums and, once, sums of squares from every slice, this one's among them.
    const int landing_place = kStreaming ? pass % 2 : 0;
    std::uint64_t* const landed_barrier = barriers + division.slots + landing_place;
    if (slices > 1 && thread == 0) {
      const int squares_bytes = normalise && pass == 0 ? slices * p.rows * static_cast<int>(sizeof(float)) : 0;
      expect_bytes(landed_barrier, static_cast<u32>(kCount * static_cast<int>(sizeof(float2)) + squares_bytes));
    }

    wait_barrier(barriers + slot, parity);
    float sums[kTiles][kRowTiles][4] = {}, own_squares[kRowTiles] = {};
    const unsigned char* const weights = shared + slot * layout.slot + 16 * quad;
    // Products of one block of kBlock numbers of the inner dimension, from k on.
    const auto take_block = [&](int k, const uint4(&right)[kRowTiles]) {
      if (normalise && pass == 0) {
#pragma unroll
        for (int n = 0; n < kRowTiles; ++n) own_squares[n] += squares_of(right[n]);
      }
      // Beyond the slice, x is zero, whatever weights stand there.
      const unsigned char* const from = weights + (k + 8 * quad < length ? k * static_cast<int>(sizeof(bf16)) : -16 * quad);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        // Columns that are not there are not written.
        const int column = 16 * t + quad_row, last = count - 1;
        const uint4 upper = *reinterpret_cast<const uint4*>(from + min(column, last) * layout.pitch);
        const uint4 lower = *reinterpret_cast<const uint4*>(from + min(column + 8, last) * layout.pitch);
        const u32 left[2][4] = {{upper.x, lower.x, upper.y, lower.y}, {upper.z, lower.z, upper.w, lower.w}};
#pragma unroll
        for (int n = 0; n < kRowTiles; ++n) {
          multiply_add(sums[t][n], left[0], right[n].x, right[n].y);
          multiply_add(sums[t][n], left[1], right[n].z, right[n].w);
        }
      }
    };
    if constexpr (kDepth == kMostBlocks) {
#pragma unroll
      for (int j = 0; j < kMostBlocks; ++j) {
        const int k = kBlock * (warp + j * kWarps);
        // Not before each block: loads of one would wait for the products of the one before.
        if ((j == 3 || j == 5) && k >= length) break;
        take_block(k, xs[j]);
      }
    } else {
      // x moves through the registers, so that this needs fewer instructions: they are fetched anew for each kernel of the chain.
#pragma unroll 1
      for (int j = 0, k = kBlock * warp; k < length; ++j, k += kBlock * kWarps) {
        take_block(k, xs[0]);
#pragma unroll
        for (int ahead = 0; ahead + 1 < kDepth; ++ahead) {
#pragma unroll
          for (int n = 0; n < kRowTiles; ++n) xs[ahead][n] = xs[ahead + 1][n];
        }
        load_x(j + kDepth, xs[kDepth - 1]);
      }
    }
    __syncthreads();  // every warp has read the weights, and the sums of the group before
    if constexpr (kStreaming) {
      if (group + division.slots * stride < groups) begin_copies(slot, group + division.slots * stride);
      if (++slot == division.slots) {
        slot = 0;
        parity ^= 1;
      }
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          partial[warp * kCount + ((t * kRowTiles + n) * 2 + half) * 32 + lane] = make_float2(sums[t][n][2 * half],
                                                                                              sums[t][n][2 * half + 1]);
        }
      }
    }
    if (normalise && pass == 0) {
#pragma unroll
      for (int n = 0; n < kRowTiles; ++n) {
        float sum = own_squares[n];
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        if (quad == 0) squares[(8 * n + quad_row) * kWarps + warp] = sum;
      }
    }
    __syncthreads();

    float2 totals[kShare];
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int pair = thread + i * kThreads;
      totals[i] = make_float2(0.0F, 0.0F);
      if (pair >= kCount) continue;
#pragma unroll
      for (int other = 0; other < kWarps; ++other) {
        const float2 sum = partial[other * kCount + pair];
        totals[i].x += sum.x;
        totals[i].y += sum.y;
      }
    }
    const auto squares_of_row = [&](int row) {
      const auto* const of_warps = reinterpret_cast<const float4*>(squares + row * kWarps);
      return sum_of(of_warps[0]) + sum_of(of_warps[1]);
    };
    if (slices > 1) {
      if (pass == 0) wait_cluster();
      float2* const landed = landing + landing_place * kCount;
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        const int pair = thread + i * kThreads;
        if (pair >= kCount) continue;
        const int to = (pair << division.slices_shift) / kCount;
        store_in_rank(landed + rank * share + pair - to * share, to, totals[i], landed_barrier);
      }
      if (normalise && pass == 0) {
#pragma unroll 1
        for (int i = thread; i < kRows * slices; i += kThreads) {
          const int row = i % kRows;
          if (row < p.rows) store_in_rank(all_squares + rank * kRows + row, i / kRows, squares_of_row(row), landed_barrier);
        }
      }
      wait_stores(landed_barrier, static_cast<u32>(pass / 2 % 2));
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        const int at = thread + i * kThreads;
        totals[i] = make_float2(0.0F, 0.0F);
        if (at >= share) continue;
#pragma unroll 1
        for (int other = 0; other < slices; ++other) {
          const float2 sum = landed[other * share + at];
          totals[i].x += sum.x;
          totals[i].y += sum.y;
        }
      }
    }
    const auto all_squares_of_row = [&](int row) {
      if (slices == 1) return squares_of_row(row);
      float sum = 0.0F;
#pragma unroll 1
      for (int other = 0; other < slices; ++other) sum += all_squares[other * kRows + row];
      return sum;
    };
    float row_squares[kShare][2] = {};
    if (normalise) {
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        const int row = row_of(own + thread + i * kThreads);
        row_squares[i][0] = all_squares_of_row(row);
        row_squares[i][1] = all_squares_of_row(row + 1);
      }
    }
    for_each_own([&](int i, int r, bf16* to) {
      finish(p, r == 0 ? totals[i].x : totals[i].y, row_squares[i][r], before[i][r], *to);
    });
  }
#endif
}

// How the inner dimension is cut; 0 slices: not at all, since they would be too many. A product with fewer columns than a tile
// for each multiprocessor is cut in two: half as many blocks then read a row.
Division divide_inner(const LinearRows& p) {
  Division d = {};
  if (p.m < 16 * multiprocessors() && p.k > kMostSlice / 2) d.slices_shift = 1;
  while (kMostSlice << d.slices_shift < p.k) ++d.slices_shift;
  d.slices = 1 << d.slices_shift;
  d.slice = d.slices == 1 ? p.k : (p.k + d.slices * kBlock - 1) / (d.slices * kBlock) * kBlock;
  if (d.slices > kMostSlices) d.slices = 0;
  return d;
}

// A warp starts a copy every 25 ns, one lane after the other, so all warps are faster than one. With few rows and many weights one
// warp is: all warps would request so many weights at once that the read of the rows waits behind them.
int copying_warps(const LinearRows& p, int weight_bytes) {
  constexpr int kFewRows = 4, kManyBytes = 64 << 10;
  return p.rows <= kFewRows && weight_bytes > kManyBytes ? 1 : kWarps;
}

template <int kTiles, int kRowTiles, bool kStreaming>
void launch_staged(const LinearRows& p, const Division& d, int blocks, Stream stream) {
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(d.slices));
  launch_clusters(&linear_rows_staged<kTiles, kRowTiles, kStreaming>, grid, static_cast<unsigned>(d.slices), kThreads,
                  static_cast<std::size_t>(Staged<kTiles, kRowTiles, kStreaming>::layout(d).bytes), stream, p, d);
}

// Whether the kernels above take this product; then it is enqueued.
template <int kRowTiles>
bool launch_staged(const LinearRows& p, Division d, Stream stream) {
  const SharedMemory memory = shared_memory();
  // Clusters of four and more lie within groups of 16 multiprocessors.
  const int usable = d.slices <= 2 ? multiprocessors() : std::max(16, multiprocessors() / 16 * 16);
  const int at_once = std::max(1, usable / d.slices);
  d.columns = (p.m + at_once - 1) / at_once;
  d.groups = (p.m + d.columns - 1) / d.columns;
  d.slots = 1;
  bool launched = false;
  const auto try_resident = [&]<int kTiles>(std::integral_constant<int, kTiles>) {
    if (launched || d.columns > 16 * kTiles) return;
    const StagedLayout layout = Staged<kTiles, kRowTiles, false>::layout(d);
    if (layout.bytes > memory.half) return;
    d.copying_warps = copying_warps(p, layout.slot);
    launch_staged<kTiles, kRowTiles, false>(p, d, d.groups, stream);
    launched = true;
  };
  try_resident(std::integral_constant<int, 1>());
  try_resident(std::integral_constant<int, 2>());
  try_resident(std::integral_constant<int, kMostTiles>());
  if (launched) return true;

  using Kind = Staged<1, kRowTiles, true>;
  d.columns = 16;
  d.groups = (p.m + d.columns - 1) / d.columns;
  const int blocks = std::min(d.groups, at_once);
  // A block that works for long, as the head's do, gains more from many bytes under way than from an early beginning.
  constexpr int kLong = 8;
  const int room = d.groups > kLong * blocks ? memory.whole : memory.half;
  d.slots = kMostSlots;
  d.copying_warps = kWarps;
  while (d.slots > 1 && Kind::layout(d).bytes > room) --d.slots;
  if (Kind::layout(d).bytes > memory.whole) return false;
  launch_staged<1, kRowTiles, true>(p, d, blocks, stream);
  return true;
}

// float32: a warp takes one column for up to kFloatRows rows; a lane every 32nd group of four numbers.
constexpr int kFloatRows = 8;
__global__ void __launch_bounds__(kThreads) linear_rows_float(const __grid_constant__ LinearRows p) {
  let_next_begin();
  wait_for_previous();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int column = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int first = static_cast<int>(blockIdx.y) * kFloatRows, rows = min(kFloatRows, p.rows - first);
  if (column >= p.m) return;
  const float* const weights = static_cast<const float*>(p.w) + column * p.w_stride;
  const float* const from = static_cast<const float*>(p.x) + first * p.x_stride;
  float sums[kFloatRows] = {}, squares[kFloatRows] = {};
  for (int k = 4 * lane; k < p.k; k += 128) {
    const float4 a = __ldg(reinterpret_cast<const float4*>(weights + k));
#pragma unroll
    for (int r = 0; r < kFloatRows; ++r) {
      if (r >= rows) break;
      const float4 b = *reinterpret_cast<const float4*>(from + r * p.x_stride + k);
      sums[r] += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
      squares[r] += b.x * b.x + b.y * b.y + b.z * b.z + b.w * b.w;
    }
  }
#pragma unroll
  for (int r = 0; r < kFloatRows; ++r) {
    const float sum = warp_sum(sums[r]), square = warp_sum(squares[r]);
    if (lane == 0 && r < rows) finish<float>(p, sum, square, first + r, column);
  }
}

}  // namespace

bool linear_rows_takes(Element type, const LinearRows& p) {
  const i64 pack = type == Element::kFloat ? kPackSize<float> : kPackSize<bf16>;
  constexpr i64 kLargest = std::numeric_limits<std::int32_t>::max();  // offsets in x and y are 32 bits in bfloat16
  const bool few = p.rows <= kMostLinearRows && p.rows * std::max(p.x_stride, p.y_stride) <= kLargest;
  return (type == Element::kFloat || few) && aligned(p.x) && aligned(p.w) && p.x_stride % pack == 0 && p.w_stride % pack == 0 &&
         p.k % pack == 0;
}

void linear_rows(Element type, const LinearRows& arguments, Stream stream) {
  LinearRows p = arguments;
  if (p.rows == 0 || p.m == 0) return;
  p.inverse_k = 1.0F / static_cast<float>(p.k);
  if (type == Element::kFloat) {
    const dim3 grid(blocks_for(p.m, kWarps), blocks_for(p.rows, kFloatRows));
    launch(&linear_rows_float, grid, kThreads, 0, stream, p);
    check_launch("linear_rows");
    return;
  }
  const Division division = divide_inner(p);
  if (overlaps_kernels() && division.slices > 0) {
    const bool launched = p.rows <= 8    ? launch_staged<1>(p, division, stream)
                          : p.rows <= 16 ? launch_staged<2>(p, division, stream)
                                         : launch_staged<4>(p, division, stream);
    check_launch("linear_rows");
    if (launched) return;
  }
  const auto run = [&]<int kTiles>(std::integral_constant<int, kTiles>) {
    const unsigned grid = blocks_for(p.m, 8);
    if (p.norm_eps >= 0.0F) {
      launch(&linear_rows_bf16<kTiles, 1, true>, grid, kThreads, 0, stream, p);
    } else {
      launch(&linear_rows_bf16<kTiles, 1, false>, grid, kThreads, 0, stream, p);
    }
  };
  if (p.rows <= 16) {
    run(std::integral_constant<int, 1>());
  } else {
    run(std::integral_constant<int, 2>());
  }
  check_launch("linear_rows");
}

}  // namespace nanochat::ops::cuda
