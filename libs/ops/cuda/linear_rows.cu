// Products of a few rows with a matrix of weights, which are bound by reading the weights. Each number is read once, 16
// bytes at a time, straight into the registers that tensor cores take it from: a sum does not care in which order its terms
// come, so the sixteen numbers that a lane reads in a row of the weights become its share of four products, and the same
// sixteen of a row of x the other factor.
//
// A block of threads takes a few columns of y; its warps share out the inner dimension and their sums are added up in the
// order of the warps. That order depends on the inner dimension alone, and rows are the rows of the products' left factor:
// a row comes out the same whatever rows stand beside it and however many.

#include <algorithm>

#include "device_code.cuh"
#include "tensor_cores.cuh"

namespace nanochat::ops::cuda {
namespace {

using u32 = std::uint32_t;

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

// What stands behind the sum.
template <class T>
__device__ inline void finish(const LinearRows& p, float sum, float squares, int row, int column) {
  if (p.norm_eps >= 0.0F) sum *= rsqrtf(squares / static_cast<float>(p.k) + p.norm_eps);
  if (p.relu_squared) sum = sum < 0.0F ? 0.0F : sum * sum;  // keeps a NaN
  T* const y = static_cast<T*>(p.y) + row * p.y_stride + column;
  if (p.add) sum += to_float(*y);
  from_float(sum, *y);
}

__device__ inline float squares_of(const Lane16& lane) {
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float low = __uint_as_float(lane.pair[i] << 16), high = __uint_as_float(lane.pair[i] & 0xffff0000U);
    sum += low * low + high * high;
  }
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
// From compute capability 9.0 on there are registers and shared memory for more at a time. A block takes 24 columns of y and a
// slice of the inner dimension. All its weights are on their way before the kernel in front of it has ended; then it copies
// its slice of x to shared memory, once for all columns that it takes in turn. Where there are several slices, their blocks are
// a cluster, whose sums are added up in the order of the slices. How the inner dimension is cut depends on it alone.

constexpr int kSliceSteps = 3;  // steps of a slice that one warp takes
constexpr int kMostSlice = kSliceSteps * kWarps * kStep;  // 1536
constexpr int kSliceColumns = 3, kSliceWidth = 8 * kSliceColumns;
constexpr int kMostSlices = 8;  // blocks of a cluster
constexpr int kSliceHalf = kWarps / 2;

// Elements from a row of x to the next in shared memory: rows that are read together lie in different banks.
__host__ __device__ inline int slice_pitch(int slice) { return slice + 32; }

template <int kTiles>
std::size_t slice_bytes(int slice) {
  constexpr std::size_t kRows = 16 * kTiles;
  return kRows * static_cast<std::size_t>(slice_pitch(slice)) * sizeof(bf16) +
         (kSliceHalf * kRows * kSliceWidth + kRows) * sizeof(float);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n" ::: "memory");
}
// What the block `rank` of the cluster has where this one has p, in shared memory.
__device__ inline float load_of_rank(const float* p, int rank) {
  u32 address;
  float value;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(address) : "r"(shared_address(p)), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];\n" : "=f"(value) : "r"(address) : "memory");
  return value;
}
#endif

template <int kTiles, bool kNormalise>
__global__ void __launch_bounds__(kThreads, kTiles <= 2 ? 2 : 1)
    linear_rows_sliced(const __grid_constant__ LinearRows p, int slice, int tiles) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kRows = 16 * kTiles;
  extern __shared__ __align__(128) unsigned char shared[];
  const int pitch = slice_pitch(slice);
  auto* const xs = reinterpret_cast<bf16*>(shared);  // (kRows, pitch)
  auto* const partial = reinterpret_cast<float*>(xs + kRows * pitch);  // (kSliceHalf, kRows, kSliceWidth)
  float* const squares = partial + kSliceHalf * kRows * kSliceWidth;  // (kRows)
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int quad_row = lane / 4, quad = lane % 4;
  const int ranks = static_cast<int>(gridDim.y), rank = static_cast<int>(blockIdx.y);
  const int first_k = rank * slice, end_k = min(first_k + slice, p.k);
  const int steps = max(0, (end_k - first_k + kStep - 1) / kStep);
  const auto* const x = static_cast<const bf16*>(p.x);
  const auto* const w = static_cast<const bf16*>(p.w);

  Lane16 weights[kSliceSteps][kSliceColumns];
  const auto load_weights = [&](int tile, int j) {
#pragma unroll
    for (int c = 0; c < kSliceColumns; ++c) {
      const int column = tile * kSliceWidth + 8 * c + quad_row;
      weights[j][c] = load16<true>(w + column * p.w_stride, first_k + (warp + j * kWarps) * kStep + 8 * quad, end_k,
                                   column < p.m);
    }
  };
  int tile = static_cast<int>(blockIdx.x);
  let_next_begin();
#pragma unroll
  for (int j = 0; j < kSliceSteps; ++j) load_weights(tile, j);
  wait_for_previous();

  for (int row = warp; row < p.rows; row += kWarps) {
    for (int k = 8 * lane; k < steps * kStep; k += 256) {
      const bool inside = first_k + k < end_k;
      copy_async(xs + row * pitch + k, x + row * p.x_stride + (inside ? first_k + k : 0), inside);
    }
  }
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
  if constexpr (kNormalise) {
    for (int row = warp; row < p.rows; row += kWarps) {
      float sum = 0.0F;
      for (int k = 8 * lane; k < steps * kStep; k += 256) {
        float values[8];
        load<8>(xs + row * pitch + k, values);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += values[i] * values[i];
      }
      sum = warp_sum(sum);
      if (lane == 0) squares[row] = sum;
    }
  }

  for (; tile < tiles; tile += static_cast<int>(gridDim.x)) {
    float sums[kTiles][kSliceColumns][4] = {};
#pragma unroll
    for (int j = 0; j < kSliceSteps; ++j) {
      const int step = warp + j * kWarps;
      if (step >= steps) break;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const bf16* const row = xs + (16 * t + quad_row) * pitch + step * kStep + 8 * quad;
        const Lane16 upper = load16<false>(row, 0, kStep, true), lower = load16<false>(row + 8 * pitch, 0, kStep, true);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const u32 left[4] = {upper.pair[2 * i], lower.pair[2 * i], upper.pair[2 * i + 1], lower.pair[2 * i + 1]};
#pragma unroll
          for (int c = 0; c < kSliceColumns; ++c) {
            multiply_add(sums[t][c], left, weights[j][c].pair[2 * i], weights[j][c].pair[2 * i + 1]);
          }
        }
      }
      if (tile + static_cast<int>(gridDim.x) < tiles) load_weights(tile + static_cast<int>(gridDim.x), j);
    }

    // A warp of the first half and its partner of the second, and then the first half in order.
    const auto for_each_pair = [&](const auto& body) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = 16 * t + quad_row + 8 * half;
#pragma unroll
          for (int c = 0; c < kSliceColumns; ++c) {
            auto* const place = reinterpret_cast<float2*>(partial + (warp % kSliceHalf * kRows + row) * kSliceWidth + 8 * c +
                                                          2 * quad);
            body(*place, sums[t][c][2 * half], sums[t][c][2 * half + 1]);
          }
        }
      }
    };
    if (warp >= kSliceHalf) for_each_pair([](float2& place, float a, float b) { place = make_float2(a, b); });
    __syncthreads();
    if (warp < kSliceHalf) {
      for_each_pair([](float2& place, float a, float b) { place = make_float2(a + place.x, b + place.y); });
    }
    __syncthreads();
    const auto sum_of = [&](int i) {
      float sum = 0.0F;
#pragma unroll
      for (int other = 0; other < kSliceHalf; ++other) sum += partial[other * kRows * kSliceWidth + i];
      return sum;
    };
    const int count = p.rows * kSliceWidth;
    const auto write = [&](int i, float sum, float square) {
      const int row = i / kSliceWidth, column = tile * kSliceWidth + i % kSliceWidth;
      if (column < p.m) finish<bf16>(p, sum, square, row, column);
    };
    if (ranks == 1) {
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
        write(i, sum_of(i), kNormalise ? squares[i / kSliceWidth] : 0.0F);
      __syncthreads();  // the next columns' sums go to the same memory
      continue;
    }
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) partial[i] = sum_of(i);
    cluster_sync();
    for (int i = rank * kThreads + static_cast<int>(threadIdx.x); i < count; i += ranks * kThreads) {
      float sum = 0.0F, square = 0.0F;
      for (int other = 0; other < ranks; ++other) {
        sum += load_of_rank(partial + i, other);
        if constexpr (kNormalise) square += load_of_rank(squares + i / kSliceWidth, other);
      }
      write(i, sum, square);
    }
    cluster_sync();
  }
#endif
}

// How the inner dimension is cut; 0 slices: not at all, since they would be too many.
struct Slices {
  int count, size;
};
Slices slices_of(int k) {
  int count = 1;
  while (count * kMostSlice < k) count *= 2;
  if (count > kMostSlices) return {0, 0};
  return {count, (k + count * kStep - 1) / (count * kStep) * kStep};
}

template <int kTiles>
void launch_sliced(const LinearRows& p, const Slices& slices, Stream stream) {
  const int tiles = (p.m + kSliceWidth - 1) / kSliceWidth, at_once = (kTiles <= 2 ? 2 : 1) * multiprocessors() / slices.count;
  const dim3 grid(static_cast<unsigned>(std::min(tiles, std::max(at_once, 1))), static_cast<unsigned>(slices.count));
  const auto run = [&](auto* kernel) {
    launch_clusters(kernel, grid, static_cast<unsigned>(slices.count), kThreads, slice_bytes<kTiles>(slices.size), stream, p,
                    slices.size, tiles);
  };
  if (p.norm_eps >= 0.0F) {
    run(&linear_rows_sliced<kTiles, true>);
  } else {
    run(&linear_rows_sliced<kTiles, false>);
  }
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
  return (type == Element::kFloat || p.rows <= kMostLinearRows) && aligned(p.x) && aligned(p.w) && p.x_stride % pack == 0 &&
         p.w_stride % pack == 0 && p.k % pack == 0;
}

void linear_rows(Element type, const LinearRows& p, Stream stream) {
  if (p.rows == 0 || p.m == 0) return;
  if (type == Element::kFloat) {
    const dim3 grid(blocks_for(p.m, kWarps), blocks_for(p.rows, kFloatRows));
    launch(&linear_rows_float, grid, kThreads, 0, stream, p);
  } else if (const Slices slices = slices_of(p.k); overlaps_kernels() && slices.count > 0) {
    if (p.rows <= 16) {
      launch_sliced<1>(p, slices, stream);
    } else if (p.rows <= 32) {
      launch_sliced<2>(p, slices, stream);
    } else {
      launch_sliced<4>(p, slices, stream);
    }
  } else {
    const auto run = [&]<int kTiles, int kColumns>(std::integral_constant<int, kTiles>, std::integral_constant<int, kColumns>) {
      const unsigned grid = blocks_for(p.m, 8 * kColumns);
      if (p.norm_eps >= 0.0F) {
        launch(&linear_rows_bf16<kTiles, kColumns, true>, grid, kThreads, 0, stream, p);
      } else {
        launch(&linear_rows_bf16<kTiles, kColumns, false>, grid, kThreads, 0, stream, p);
      }
    };
    using One = std::integral_constant<int, 1>;
    using Two = std::integral_constant<int, 2>;
    if (p.rows <= 16) {
      run(One(), One());
    } else if (p.rows <= 32) {
      run(Two(), One());
    } else {
      run(std::integral_constant<int, 4>(), Two());
    }
  }
  check_launch("linear_rows");
}

}  // namespace nanochat::ops::cuda
