#pragma once
// What the kernels of products with few rows share (linear_rows.cu, linear_sliced.cu): what stands before and behind the sum.

#include "bulk_copies.cuh"
#include "device_code.cuh"

namespace nanochat::ops::cuda {

// What stands behind the sum. before: what y held, where p.add says so.
template <class T>
__device__ inline void finish(const LinearRows& p, float sum, float squares, float before, T& y) {
  if (p.norm_eps >= 0.0F) sum *= rsqrtf(squares / static_cast<float>(p.k) + p.norm_eps);
  if (p.relu_squared) sum = sum < 0.0F ? 0.0F : sum * sum;  // keeps a NaN
  if (p.add) sum += before;
  from_float(sum, y);
}
template <class T>
__device__ inline void finish(const LinearRows& p, float sum, float squares, int row, int column) {
  T& y = static_cast<T*>(p.y)[row * p.y_stride + column];
  finish(p, sum, squares, p.add ? to_float(y) : 0.0F, y);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// By one warp of each block: brings the block's share of p.ahead to the second-level cache.
__device__ inline void fetch_ahead(const LinearRows& p) {
  if (p.ahead == nullptr) return;
  constexpr i64 kChunk = 4096;
  const i64 blocks = static_cast<i64>(gridDim.x) * gridDim.y * gridDim.z;
  const i64 block = (static_cast<i64>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const i64 chunks = (p.ahead_bytes + kChunk - 1) / kChunk;
  for (i64 chunk = block + blocks * (threadIdx.x % 32); chunk < chunks; chunk += 32 * blocks) {
    const i64 bytes = p.ahead_bytes - chunk * kChunk;
    fetch_bulk(static_cast<const char*>(p.ahead) + chunk * kChunk, static_cast<u32>(bytes < kChunk ? bytes : kChunk));
  }
}
#endif

// Of 8 numbers of bfloat16.
__device__ inline float squares_of(const uint4& pairs) {
  float sum = 0.0F;
#pragma unroll
  for (const u32 pair : {pairs.x, pairs.y, pairs.z, pairs.w}) {
    const float low = __uint_as_float(pair << 16), high = __uint_as_float(pair & 0xffff0000U);
    sum += low * low + high * high;
  }
  return sum;
}

}  // namespace nanochat::ops::cuda
