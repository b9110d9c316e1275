#pragma once
// Keys and values in 8 bits (ops/paged_attention.h): E4M3, from floats and as operands of tensor cores. Every such number is a
// half-precision one, too, so that products are those of half precision.

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <type_traits>

#include "device_code.cuh"

namespace nanochat::ops::cuda {

using e4m3 = __nv_fp8_e4m3;

// Two floats rounded to half precision, the first in the low half.
__device__ inline u32 pack_half(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const u32*>(&pair);
}

// store() of device_code.cuh: to the nearest number, at most 448.
template <int N>
__device__ inline void store(e4m3* p, const float (&values)[N]) {
  if constexpr (N == 1) {
    p->__x = __nv_cvt_float_to_fp8(values[0], __NV_SATFINITE, __NV_E4M3);
  } else {
    Pack<__nv_fp8x2_storage_t, N / 2> pack;
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      pack.v[i] = __nv_cvt_float2_to_fp8x2(make_float2(values[2 * i], values[2 * i + 1]), __NV_SATFINITE, __NV_E4M3);
    }
    *reinterpret_cast<Pack<__nv_fp8x2_storage_t, N / 2>*>(p) = pack;
  }
}

// Likewise, to half precision.
template <int N>
__device__ inline void store(__half* p, const float (&values)[N]) {
  Pack<u32, N / 2> pack;
#pragma unroll
  for (int i = 0; i < N / 2; ++i) pack.v[i] = pack_half(values[2 * i], values[2 * i + 1]);
  *reinterpret_cast<Pack<u32, N / 2>*>(p) = pack;
}

// Two neighbouring numbers in half precision, the first in the low half.
__device__ inline u32 to_half(u32 pair) {
  const __half2_raw halves = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), __NV_E4M3);
  return static_cast<u32>(halves.x) | static_cast<u32>(halves.y) << 16;
}

// Two numbers of bfloat16 in half precision.
__device__ inline u32 half_of_bf16(u32 pair) {
  return pack_half(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000U));
}

// Calls body with a value of the type that a cache has for keys and values of type T.
template <class T, class Body>
void visit_cache(bool fp8, const Body& body) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (fp8) return body(e4m3{});
  }
  body(T{});
}

}  // namespace nanochat::ops::cuda
