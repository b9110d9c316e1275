#pragma once
// Shared by the .cu files of this folder: 16-byte accesses, sums over a row, launch checks.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace nanochat::ops::cuda {

using i64 = std::int64_t;
using bf16 = __nv_bfloat16;
using u32 = std::uint32_t;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline void from_float(float x, float& y) { y = x; }
__device__ inline void from_float(float x, bf16& y) { y = __float2bfloat16_rn(x); }

// N neighbouring elements, moved in one access.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};
template <class T>
constexpr int kPackSize = 16 / sizeof(T);

template <int N, class T>
__device__ inline void load(const T* p, float (&out)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(p);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = to_float(pack.v[i]);
}
template <int N, class T>
__device__ inline void store(T* p, const float (&values)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) from_float(values[i], pack.v[i]);
  *reinterpret_cast<Pack<T, N>*>(p) = pack;
}

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffU, x, offset);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, offset));
  return x;
}

// The sum over the threads with one threadIdx.y. With more than a warp of them, the whole block must call it.
__device__ inline float row_sum(float x) {
  x = warp_sum(x);
  if (blockDim.x == 32) return x;
  __shared__ float partial[32];
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  __syncthreads();  // the sum before may still be being read
  if (threadIdx.x % 32 == 0) partial[warp] = x;
  __syncthreads();
  x = static_cast<int>(threadIdx.x % 32) < warps ? partial[threadIdx.x % 32] : 0.0F;
  return warp_sum(x);
}
__device__ inline float row_max(float x) {
  x = warp_max(x);
  if (blockDim.x == 32) return x;
  __shared__ float partial[32];
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[warp] = x;
  __syncthreads();
  x = static_cast<int>(threadIdx.x % 32) < warps ? partial[threadIdx.x % 32] : -3.4e38F;
  return warp_max(x);
}

// The sum over L neighbouring lanes, for all of them. The whole warp calls it.
template <int L>
__device__ inline float group_sum(float x) {
#pragma unroll
  for (int offset = L / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffU, x, offset);
  return x;
}

// Accesses a thread keeps in registers; threads a row are chosen so that they suffice.
constexpr int kAccesses = 4;

struct RowLaunch {
  dim3 grid, block;
};

// A warp a row where that holds it, several rows a block; more threads, and one row a block, for wider rows.
inline RowLaunch row_launch(i64 rows, i64 n, int access, int kept = kAccesses) {
  const i64 accesses = (n + access - 1) / access;
  const i64 warps = (accesses + 32 * kept - 1) / (32 * kept);
  if (warps > 32) throw std::runtime_error("rows of " + std::to_string(n) + " elements are too wide for these kernels");
  RowLaunch shape;
  shape.block = warps == 1 ? dim3(32, 8) : dim3(static_cast<unsigned>(32 * warps), 1);
  shape.grid = dim3(static_cast<unsigned>((rows + shape.block.y - 1) / shape.block.y));
  return shape;
}

// Serving's part of rope_qk_norm() (ops/rope.h): L lanes have a head, each N pairs of it.
template <int N>
__device__ inline void rotate(float (&x1)[N], float (&x2)[N], const float (&cos)[N], const float (&sin)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float first = x1[j] * cos[j] + x2[j] * sin[j];
    x2[j] = x2[j] * cos[j] - x1[j] * sin[j];
    x1[j] = first;
  }
}
// Divides a head of d numbers by its root mean square if this lane's is `wanted`. The whole warp calls it.
template <int L, int N>
__device__ inline void normalise_head(float (&x1)[N], float (&x2)[N], bool wanted, int d, float eps) {
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < N; ++j) sum += x1[j] * x1[j] + x2[j] * x2[j];
  sum = group_sum<L>(sum);
  const float scale = wanted ? rsqrtf(sum / static_cast<float>(d) + eps) : 1.0F;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    x1[j] *= scale;
    x2[j] *= scale;
  }
}

// Where the head of a token goes in the paged cache, in elements.
__device__ inline i64 cache_offset(const PagedShape& shape, int slot, int head) {
  const i64 row = static_cast<i64>(slot / shape.block_size) * shape.n_kv_head + head;
  return (row * shape.block_size + slot % shape.block_size) * shape.d;
}

inline void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// Kernels of a decoding step are short: the next one may begin while the one before it ends, up to the point where it waits
// for its results (programmatic dependent launch, from compute capability 9.0 on). A kernel that is launched by launch()
// calls both functions, in every thread and before any of them returns:
// - let_next_begin(): when all blocks have called it, blocks of the next kernel take up what room is left;
// - wait_for_previous(): before it reads anything but constants such as weights, and before it writes. Pointers to what is
//   read then must not be __restrict__: the compiler may take loads through them ahead of it.
__device__ inline void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Whether the current device can begin a kernel before the one before it has ended.
inline bool overlaps_kernels() {
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  return major >= 9;
}

// Of the current device.
inline int multiprocessors() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// Bytes of shared memory that a block can have on the current device: all of a multiprocessor's, and so much that two blocks
// fit.
struct SharedMemory {
  int whole, half;
};
inline SharedMemory shared_memory() {
  int device = 0, whole = 0, all = 0, reserved = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&whole, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
  cudaDeviceGetAttribute(&reserved, cudaDevAttrReservedSharedMemoryPerBlock, device);
  return {whole, all / 2 - reserved};
}

// kernel<<<grid, threads, shared_bytes, stream>>>(arguments...), with as much dynamic shared memory as the device has, in
// clusters of so many blocks along y (from compute capability 9.0 on).
template <class... Parameters, class... Arguments>
void launch_clusters(void (*kernel)(Parameters...), dim3 grid, unsigned cluster, dim3 threads, std::size_t shared_bytes,
                     Stream stream, const Arguments&... arguments) {
  constexpr std::size_t kAlwaysAllowed = 32 << 10;  // 48 KiB need no request, the kernel's own shared arrays among them
  if (shared_bytes > kAlwaysAllowed) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  }
  // The same division between shared memory and first-level cache for all kernels of a chain: a multiprocessor changes it only
  // when it is empty, and so the blocks of the next kernel would wait for the end of this one.
  cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (overlaps_kernels()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = 1;
    attributes[count].val.clusterDim.y = cluster;
    attributes[count++].val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 threads, std::size_t shared_bytes, Stream stream,
            const Arguments&... arguments) {
  launch_clusters(kernel, grid, 1, threads, shared_bytes, stream, arguments...);
}

inline unsigned blocks_for(i64 items, i64 per_block) { return static_cast<unsigned>((items + per_block - 1) / per_block); }

// Calls body with a value of the element's type.
template <class Body>
void visit(Element type, const Body& body) {
  if (type == Element::kFloat) {
    body(float{});
  } else {
    body(bf16{});
  }
}

// Calls body with a value of the type of the residual stream beside others of type T: float, or T itself.
template <class T, class Body>
void visit_stream(Element type, const Body& body) {
  if (type == Element::kFloat) {
    body(float{});
  } else {
    body(T{});
  }
}

inline bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace nanochat::ops::cuda
