// From bfloat16 to 8-bit floating point: the largest magnitude of a tensor, and its numbers by rows and by columns. All
// kernels are bound by memory.

#include <cuda_fp8.h>

#include "device_code.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;
constexpr int N = kPackSize<bf16>;

// The bits of magnitudes compare like the numbers, and those of a NaN are above all of them: a NaN stays.
__device__ inline u32 magnitude(float x) { return __float_as_uint(x) & 0x7fffffffU; }

// What is compared or passed to 8 bits: a number, max(x, 0)^2, or 2 max(x, 0) times a second input.
enum class Source { kPlain, kReluSquared, kReluSquaredBackward };
template <Source kSource>
__device__ inline float value_of(bf16 x, bf16 other) {
  const float value = to_float(x);
  if constexpr (kSource == Source::kPlain) return value;
  const float positive = value < 0.0F ? 0.0F : value;  // keeps a NaN
  if constexpr (kSource == Source::kReluSquared) return positive * positive;
  return 2.0F * positive * to_float(other);
}

// The largest of the blocks' numbers, in an atomic maximum for each block. That is repeatable: it does not depend on an order.
__device__ inline void maximum_of_blocks(u32 most, u32* largest) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  most = __reduce_max_sync(0xffffffffU, most);
#endif
  __shared__ u32 of_warps[kThreads / 32];
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (const u32 one : of_warps) most = max(most, one);
  atomicMax(largest, most);
}

// Few blocks with much work each, for few atomic operations.
template <Source kSource>
__global__ void __launch_bounds__(kThreads) largest_kernel(const bf16* __restrict__ x, i64 packs, u32* largest) {
  constexpr int kUnroll = 4;
  const i64 step = static_cast<i64>(gridDim.x) * kThreads;
  u32 most = 0;
  for (i64 first = static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x; first < packs; first += kUnroll * step) {
    Pack<bf16, N> loaded[kUnroll] = {};
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      if (first + k * step < packs) loaded[k] = *reinterpret_cast<const Pack<bf16, N>*>(x + (first + k * step) * N);
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
#pragma unroll
      for (int j = 0; j < N; ++j) most = max(most, magnitude(value_of<kSource>(loaded[k].v[j], bf16())));
    }
  }
  maximum_of_blocks(most, largest);
}

// A warp for a row at a time.
__global__ void __launch_bounds__(kThreads)
    largest_row_norm_kernel(const bf16* __restrict__ x, i64 rows, i64 columns, u32* largest) {
  const i64 warps = static_cast<i64>(gridDim.x) * (kThreads / 32);
  u32 most = 0;
  for (i64 row = (static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x) / 32; row < rows; row += warps) {
    float sum = 0.0F;
#pragma unroll 4
    for (i64 i = static_cast<i64>(threadIdx.x % 32) * N; i < columns; i += 32 * N) {
      float values[N];
      load<N>(x + row * columns + i, values);
#pragma unroll
      for (int j = 0; j < N; ++j) sum += values[j] * values[j];
    }
    most = max(most, magnitude(sqrtf(warp_sum(sum))));
  }
  maximum_of_blocks(most, largest);
}

unsigned few_blocks(i64 needed) {
  const i64 most = static_cast<i64>(multiprocessors()) * kBlocksPerMultiprocessor;
  return static_cast<unsigned>(needed < most ? needed : most);
}

template <Source kSource>
void launch_largest(const void* x, i64 n, float* largest, Stream stream) {
  cudaMemsetAsync(largest, 0, sizeof(float), stream);
  largest_kernel<kSource><<<few_blocks(blocks_for(n / N, kThreads)), kThreads, 0, stream>>>(static_cast<const bf16*>(x), n / N,
                                                                                            reinterpret_cast<u32*>(largest));
  check_launch("largest_magnitude");
}

// The factor that makes `largest` the largest number of the format.
template <__nv_fp8_interpretation_t kFormat>
__device__ inline float factor_of(float largest) {
  constexpr double kMost = kFormat == __NV_E4M3 ? 448.0 : 57344.0;
  constexpr double kSmallest = 1e-12;  // so that a tensor of zeros has a scale
  const double bound = largest < kSmallest ? kSmallest : static_cast<double>(largest);  // keeps a NaN
  return static_cast<float>(kMost / bound);
}

template <__nv_fp8_interpretation_t kFormat, Source kSource>
__device__ inline u32 four_of(const Pack<bf16, N>& x, const Pack<bf16, N>& other, int first, float factor) {
  const auto one = [&](int i) { return value_of<kSource>(x.v[i], other.v[i]) * factor; };
  const auto two = [&](int i) {
    return static_cast<u32>(__nv_cvt_float2_to_fp8x2(make_float2(one(i), one(i + 1)), __NV_SATFINITE, kFormat));
  };
  return two(first) | (two(first + 2) << 16);
}

// Byte j of rows[i] becomes byte i of columns[j].
__device__ inline void transpose(u32 a, u32 b, u32 c, u32 d, u32 (&columns)[4]) {
  const u32 ab01 = __byte_perm(a, b, 0x5140), ab23 = __byte_perm(a, b, 0x7362);
  const u32 cd01 = __byte_perm(c, d, 0x5140), cd23 = __byte_perm(c, d, 0x7362);
  columns[0] = __byte_perm(ab01, cd01, 0x5410);
  columns[1] = __byte_perm(ab01, cd01, 0x7632);
  columns[2] = __byte_perm(ab23, cd23, 0x5410);
  columns[3] = __byte_perm(ab23, cd23, 0x7632);
}

constexpr int kTile = 128;  // rows and columns of a block: both results are then written in whole cache lines
constexpr int kSide = 8;    // rows and columns of a thread

// The tile turns over in shared memory, in units of 8 bytes: 8 rows of a column. Unit u of column c lies at u ^ (c / 8), so that
// neither writes nor reads of a warp meet in a bank.
template <__nv_fp8_interpretation_t kFormat, Source kSource, bool kRows, bool kColumns>
__global__ void __launch_bounds__(kThreads, kSource == Source::kReluSquaredBackward ? 2 : 3)
    to_fp8_kernel(const bf16* __restrict__ x, const bf16* __restrict__ other, const float* __restrict__ largest,
                  std::uint8_t* __restrict__ by_rows, std::uint8_t* __restrict__ by_columns, float* __restrict__ scale,
                  i64 rows, i64 columns) {
  constexpr int kGroups = kTile / kSide;
  static_assert(kSide == N && kGroups * kGroups == kThreads);
  __shared__ alignas(16) uint2 tile[kColumns ? kTile : 1][kGroups];
  __shared__ float shared_factor;
  const int tx = static_cast<int>(threadIdx.x) % kGroups, ty = static_cast<int>(threadIdx.x) / kGroups;
  const i64 row = static_cast<i64>(blockIdx.y) * kTile + ty * kSide, column = static_cast<i64>(blockIdx.x) * kTile + tx * kSide;
  constexpr bool kTwo = kSource == Source::kReluSquaredBackward;
  Pack<bf16, N> packs[kSide] = {}, others[kTwo ? kSide : 1] = {};
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
    if (row + i >= rows || column >= columns) continue;
    packs[i] = *reinterpret_cast<const Pack<bf16, N>*>(x + (row + i) * columns + column);
    if constexpr (kTwo) others[i] = *reinterpret_cast<const Pack<bf16, N>*>(other + (row + i) * columns + column);
  }
  if (threadIdx.x == 0) {
    shared_factor = factor_of<kFormat>(*largest);
    if (blockIdx.x == 0 && blockIdx.y == 0) *scale = 1.0F / shared_factor;
  }
  __syncthreads();
  const float factor = shared_factor;
  uint2 bits[kSide];
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
    const Pack<bf16, N>& second = others[kTwo ? i : 0];
    bits[i] = make_uint2(four_of<kFormat, kSource>(packs[i], second, 0, factor),
                         four_of<kFormat, kSource>(packs[i], second, 4, factor));
  }
  if constexpr (kRows) {
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
      if (row + i < rows && column < columns) *reinterpret_cast<uint2*>(by_rows + (row + i) * columns + column) = bits[i];
    }
  }
  if constexpr (kColumns) {
    u32 above[4], below[4];
    const auto put = [&](int first) {
#pragma unroll
      for (int j = 0; j < 4; ++j) tile[tx * kSide + first + j][ty ^ tx] = make_uint2(above[j], below[j]);
    };
    transpose(bits[0].x, bits[1].x, bits[2].x, bits[3].x, above);
    transpose(bits[4].x, bits[5].x, bits[6].x, bits[7].x, below);
    put(0);
    transpose(bits[0].y, bits[1].y, bits[2].y, bits[3].y, above);
    transpose(bits[4].y, bits[5].y, bits[6].y, bits[7].y, below);
    put(4);
    __syncthreads();
    constexpr int kChunk = 2 * kSide, kChunks = kTile / kChunk;  // rows of 16 bytes
#pragma unroll
    for (int k = 0; k < kTile * kChunks / kThreads; ++k) {
      const int index = static_cast<int>(threadIdx.x) + k * kThreads, c = index / kChunks, chunk = index % kChunks;
      const int swizzle = c / kSide;
      const uint4 pair = *reinterpret_cast<const uint4*>(&tile[c][(2 * chunk) ^ (swizzle & ~1)]);
      const i64 to_row = static_cast<i64>(blockIdx.y) * kTile + chunk * kChunk,
                to_column = static_cast<i64>(blockIdx.x) * kTile + c;
      if (to_row >= rows || to_column >= columns) continue;
      *reinterpret_cast<uint4*>(by_columns + to_column * rows + to_row) = swizzle % 2 == 0
                                                                              ? pair
                                                                              : make_uint4(pair.z, pair.w, pair.x, pair.y);
    }
  }
}

template <__nv_fp8_interpretation_t kFormat, Source kSource>
void launch_to_fp8(const void* x, const void* other, const float* largest, const Fp8Pointers& to, i64 rows, i64 columns,
                   Stream stream) {
  const dim3 grid(blocks_for(columns, kTile), blocks_for(rows, kTile));
  auto kernel = &to_fp8_kernel<kFormat, kSource, true, true>;
  if constexpr (kSource == Source::kPlain) {
    if (to.rows == nullptr) kernel = &to_fp8_kernel<kFormat, kSource, false, true>;
    if (to.columns == nullptr) kernel = &to_fp8_kernel<kFormat, kSource, true, false>;
  }
  kernel<<<grid, kThreads, 0, stream>>>(static_cast<const bf16*>(x), static_cast<const bf16*>(other), largest,
                                        static_cast<std::uint8_t*>(to.rows), static_cast<std::uint8_t*>(to.columns), to.scale,
                                        rows, columns);
  check_launch("to_fp8");
}

}  // namespace

void largest_magnitude(const void* x, i64 n, float* largest, Stream stream) {
  launch_largest<Source::kPlain>(x, n, largest, stream);
}

void largest_relu_squared(const void* z, i64 n, float* largest, Stream stream) {
  launch_largest<Source::kReluSquared>(z, n, largest, stream);
}

void largest_row_norm(const void* x, i64 rows, i64 columns, float* largest, Stream stream) {
  cudaMemsetAsync(largest, 0, sizeof(float), stream);
  largest_row_norm_kernel<<<few_blocks(blocks_for(rows, kThreads / 32)), kThreads, 0, stream>>>(
      static_cast<const bf16*>(x), rows, columns, reinterpret_cast<u32*>(largest));
  check_launch("largest_row_norm");
}

void to_fp8(Element8 type, const void* x, const float* largest, const Fp8Pointers& to, i64 rows, i64 columns, Stream stream) {
  if (type == Element8::kE4M3) {
    launch_to_fp8<__NV_E4M3, Source::kPlain>(x, nullptr, largest, to, rows, columns, stream);
  } else {
    launch_to_fp8<__NV_E5M2, Source::kPlain>(x, nullptr, largest, to, rows, columns, stream);
  }
}

void relu_squared_to_fp8(const void* z, const float* largest, const Fp8Pointers& to, i64 rows, i64 columns, Stream stream) {
  launch_to_fp8<__NV_E4M3, Source::kReluSquared>(z, nullptr, largest, to, rows, columns, stream);
}

void relu_squared_backward_to_fp8(const void* dy, const void* z, const float* largest, const Fp8Pointers& to, i64 rows,
                                  i64 columns, Stream stream) {
  launch_to_fp8<__NV_E5M2, Source::kReluSquaredBackward>(z, dy, largest, to, rows, columns, stream);
}

}  // namespace nanochat::ops::cuda
