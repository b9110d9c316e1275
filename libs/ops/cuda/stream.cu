// Kernels of the residual stream of nanochat-2026-07: mixing with its beginning, backout, smear. Each reads and writes every
// element once. Sums over all rows are taken in two steps, blocks first, always in the same order.

#include <algorithm>

#include "device_code.cuh"

namespace nanochat::ops::cuda {
namespace {

// Threads of a block at most, which leaves each of them the registers for its part of the row.
constexpr int kMostThreads = 512;

// The stream is rounded to its type S before it is mixed and before it is normalised, and to T where `before` is stored, as the
// separate operations are.
template <class S, class T, int N, int kHeld>
__global__ void __launch_bounds__(kMostThreads)
    residual_mix_kernel(S* stream, const T* branch, const T* x0, const float* a, const float* b, T* before, T* y, float* rstd,
                        i64 rows, int n, float eps) {
  let_next_begin();
  wait_for_previous();
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const i64 offset = row * n;
  // All loads of the row are under way before anything is stored.
  Pack<S, N> streams[kHeld];
  Pack<T, N> branches[kHeld], starts[kHeld];
#pragma unroll
  for (int access = 0; access < kHeld; ++access) {
    const int i = (access * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
    if (i >= n) continue;
    streams[access] = *reinterpret_cast<const Pack<S, N>*>(stream + offset + i);
    starts[access] = *reinterpret_cast<const Pack<T, N>*>(x0 + offset + i);
    if (branch != nullptr) branches[access] = *reinterpret_cast<const Pack<T, N>*>(branch + offset + i);
  }
  const float scale = *a, share = *b;
  float values[kHeld][N];
  float sum = 0.0F;
#pragma unroll
  for (int access = 0; access < kHeld; ++access) {
    const int i = (access * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
    if (i >= n) continue;
    Pack<S, N>& pack = streams[access];
    if (branch != nullptr) {
#pragma unroll
      for (int j = 0; j < N; ++j) from_float(to_float(pack.v[j]) + to_float(branches[access].v[j]), pack.v[j]);
    }
    if (before != nullptr) {
      Pack<T, N> rounded;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        from_float(to_float(pack.v[j]), rounded.v[j]);
        from_float(to_float(rounded.v[j]), pack.v[j]);
      }
      *reinterpret_cast<Pack<T, N>*>(before + offset + i) = rounded;
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      from_float(scale * to_float(pack.v[j]) + share * to_float(starts[access].v[j]), pack.v[j]);
      values[access][j] = to_float(pack.v[j]);
      sum += values[access][j] * values[access][j];
    }
    *reinterpret_cast<Pack<S, N>*>(stream + offset + i) = pack;
  }
  const float norm = rsqrtf(row_sum(sum) / static_cast<float>(n) + eps);
#pragma unroll
  for (int access = 0; access < kHeld; ++access) {
    const int i = (access * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
    if (i >= n) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) values[access][j] *= norm;
    store<N>(y + offset + i, values[access]);
  }
  if (rstd != nullptr && threadIdx.x == 0) rstd[row] = norm;
}

// Sums of x over all threads of the block, in partial[blockIdx.x].
__device__ inline void store_block_sum(float x, float* partial) {
  __shared__ float warps[32];
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int count = static_cast<int>(blockDim.x * blockDim.y) / 32;
  x = warp_sum(x);
  __syncthreads();  // the sums before may still be being read
  if (thread % 32 == 0) warps[thread / 32] = x;
  __syncthreads();
  if (thread >= 32) return;
  x = warp_sum(thread < count ? warps[thread] : 0.0F);
  if (thread == 0) partial[blockIdx.x] = x;
}

// Adds the sums of partials (2, blocks) to *first and *second; first may be null.
__global__ void add_partials_kernel(const float* __restrict__ partials, i64 blocks, float* first, float* second) {
  __shared__ double sums[32];
  float* to = blockIdx.x == 0 ? first : second;
  if (to == nullptr) return;
  double sum = 0.0;
  for (i64 i = threadIdx.x; i < blocks; i += blockDim.x) sum += partials[blockIdx.x * blocks + i];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = 0.0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total += sums[warp];
  *to += static_cast<float>(total);
}

// A thread keeps kHeld accesses of a row in registers, of each tensor. All loads of a row are under way before the sum over the
// row is taken. A block takes rows in turn.
template <class T, int N, int kHeld, bool kNorm>
__global__ void __launch_bounds__(kMostThreads) residual_mix_backward_kernel(MixBackward arguments, i64 rows, int n) {
  const float scale = *arguments.a, share = *arguments.b;
  float of_before = 0.0F, of_start = 0.0F;
  for (i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y; row < rows;
       row += static_cast<i64>(gridDim.x) * blockDim.y) {
    const i64 offset = row * n;
    const auto* dy = static_cast<const T*>(arguments.dy) + offset;
    const auto* y = static_cast<const T*>(arguments.y) + offset;
    const auto* before = static_cast<const T*>(arguments.before);
    const auto* x0 = static_cast<const T*>(arguments.x0) + offset;
    auto* gradient = static_cast<T*>(arguments.gradient) + offset;
    T* dx0 = static_cast<T*>(arguments.dx0) + offset;
    Pack<T, N> norms[kNorm ? kHeld : 1], outputs[kNorm ? kHeld : 1], gradients[kHeld], starts[kHeld], befores[kHeld];
    float to_start[kHeld][N];
#pragma unroll
    for (int access = 0; access < kHeld; ++access) {
      const int i = (access * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
      if (i >= n) continue;
      if constexpr (kNorm) {
        norms[access] = *reinterpret_cast<const Pack<T, N>*>(dy + i);
        outputs[access] = *reinterpret_cast<const Pack<T, N>*>(y + i);
      }
      gradients[access] = *reinterpret_cast<const Pack<T, N>*>(gradient + i);
      starts[access] = *reinterpret_cast<const Pack<T, N>*>(x0 + i);
      if (before != nullptr) befores[access] = *reinterpret_cast<const Pack<T, N>*>(before + offset + i);
#pragma unroll
      for (int j = 0; j < N; ++j) to_start[access][j] = 0.0F;
      if (arguments.accumulate) load<N>(dx0 + i, to_start[access]);
    }
    float mean = 0.0F, norm = 0.0F;
    if constexpr (kNorm) {
      norm = arguments.rstd[row];
      float sum = 0.0F;
#pragma unroll
      for (int access = 0; access < kHeld; ++access) {
        const int i = (access * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
        if (i >= n) continue;
#pragma unroll
        for (int j = 0; j < N; ++j) sum += to_float(norms[access].v[j]) * to_float(outputs[access].v[j]);
      }
      mean = row_sum(sum) / static_cast<float>(n);
    }
#pragma unroll
    for (int access = 0; access < kHeld; ++access) {
      const int i = (access * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
      if (i >= n) continue;
      float du[N];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        du[j] = to_float(gradients[access].v[j]);
        if constexpr (kNorm) du[j] += norm * (to_float(norms[access].v[j]) - to_float(outputs[access].v[j]) * mean);
        if (before != nullptr) of_before += du[j] * to_float(befores[access].v[j]);
        of_start += du[j] * to_float(starts[access].v[j]);
        to_start[access][j] += share * du[j];
        du[j] *= scale;
      }
      store<N>(dx0 + i, to_start[access]);
      store<N>(gradient + i, du);
    }
  }
  store_block_sum(of_before, arguments.partials);
  store_block_sum(of_start, arguments.partials + gridDim.x);
}

template <class T>
__device__ inline float gate_logit(const T* x, const T* gate, int channels) {
  float logit = 0.0F;
  for (int i = static_cast<int>(threadIdx.x); i < channels; i += static_cast<int>(blockDim.x)) {
    logit += to_float(x[i]) * to_float(gate[i]);
  }
  return row_sum(logit);
}

template <class T, int N>
__global__ void smear_kernel(Smear arguments, T* y, float* s, i64 rows, int n) {
  let_next_begin();
  wait_for_previous();
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const i64 offset = row * n;
  const T* x = static_cast<const T*>(arguments.x) + offset;
  const bool smeared = arguments.before[row] >= 0;
  const T* previous = arguments.previous != nullptr ? static_cast<const T*>(arguments.previous) + offset : x - n;
  float opened = 0.0F;
  if (smeared) {
    const float logit = gate_logit(x, static_cast<const T*>(arguments.gate), arguments.channels);
    opened = 1.0F / (1.0F + expf(-logit));
  }
  if (s != nullptr && threadIdx.x == 0) s[row] = opened;
  const float share = *arguments.lambda * opened;
  for (int i = static_cast<int>(threadIdx.x) * N; i < n; i += static_cast<int>(blockDim.x) * N) {
    float values[N];
    load<N>(x + i, values);
    if (smeared) {
      float above[N];
      load<N>(previous + i, above);
#pragma unroll
      for (int j = 0; j < N; ++j) values[j] += share * above[j];
    }
    store<N>(y + offset + i, values);
  }
}

template <class T, int N>
__global__ void smear_backward_kernel(Smear arguments, const T* __restrict__ dy, const float* __restrict__ s,
                                      T* __restrict__ dx, float* __restrict__ slopes, float* __restrict__ partials, i64 rows,
                                      int n) {
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  const bool live = row < rows;  // all threads take part in the sum of the block
  const i64 offset = row * n;
  const T* x = static_cast<const T*>(arguments.x) + offset;
  const T* gate = static_cast<const T*>(arguments.gate);
  const float lambda = *arguments.lambda;
  const bool smeared = live && arguments.before[row] >= 0;
  const float given = live && row + 1 < rows && arguments.before[row + 1] >= 0 ? lambda * s[row + 1] : 0.0F;
  // A row may be longer than registers hold: it is read twice, the second time from the cache.
  float product = 0.0F;
  if (smeared) {
    for (int i = static_cast<int>(threadIdx.x) * N; i < n; i += static_cast<int>(blockDim.x) * N) {
      float gradient[N], above[N];
      load<N>(dy + offset + i, gradient);
      load<N>(x - n + i, above);
#pragma unroll
      for (int j = 0; j < N; ++j) product += gradient[j] * above[j];
    }
  }
  product = row_sum(product);
  const float opened = smeared ? s[row] : 0.0F, slope = lambda * product * opened * (1.0F - opened);
  if (live) {
    if (threadIdx.x == 0) slopes[row] = slope;
    for (int i = static_cast<int>(threadIdx.x) * N; i < n; i += static_cast<int>(blockDim.x) * N) {
      float gradient[N], below[N];
      load<N>(dy + offset + i, gradient);
      if (given != 0.0F) {
        load<N>(dy + offset + n + i, below);
#pragma unroll
        for (int j = 0; j < N; ++j) gradient[j] += given * below[j];
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (i + j < arguments.channels) gradient[j] += slope * to_float(gate[i + j]);
      }
      store<N>(dx + offset + i, gradient);
    }
  }
  store_block_sum(threadIdx.x == 0 ? product * opened : 0.0F, partials);
}

template <class T>
bool wide(i64 n, std::initializer_list<const void*> pointers) {
  bool fits = n % kPackSize<T> == 0;
  for (const void* pointer : pointers) fits = fits && (pointer == nullptr || aligned(pointer));
  return fits;
}

RowLaunch stream_launch(i64 rows, i64 n, int access, int held = kAccesses) {
  const RowLaunch shape = row_launch(rows, n, access, held);
  if (shape.block.x > kMostThreads) {
    throw std::runtime_error("streams of " + std::to_string(n) + " channels are too wide for the CUDA kernels");
  }
  return shape;
}

// Calls body with the elements of an access.
template <class T, class Body>
void visit_access(bool is_wide, const Body& body) {
  if (is_wide) {
    body(std::integral_constant<int, kPackSize<T>>());
  } else {
    body(std::integral_constant<int, 1>());
  }
}

// Calls body with the accesses of a row that a thread has to hold: few, because registers limit how many loads are under way.
template <class Body>
void visit_held(i64 accesses, const Body& body) {
  if (accesses <= kMostThreads) {
    body(std::integral_constant<int, 1>());
  } else if (accesses <= 2 * kMostThreads) {
    body(std::integral_constant<int, 2>());
  } else {
    body(std::integral_constant<int, 4>());
  }
}

// The blocks of a kernel that the current device runs at the same time.
template <class Kernel>
unsigned resident_blocks(Kernel kernel, dim3 block) {
  int blocks = 1;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, static_cast<int>(block.x * block.y), 0);
  return static_cast<unsigned>(std::max(1, blocks) * multiprocessors());
}

constexpr int kSumThreads = 1024;

}  // namespace

void residual_mix(Element type, Element stream_type, void* stream, const void* branch, const void* x0, const float* a,
                  const float* b, void* before, void* y, float* rstd, i64 rows, i64 n, float eps, Stream stream_of_work) {
  if (rows == 0) return;
  visit(type, [&]<class T>(T) {
    visit_stream<T>(stream_type, [&]<class S>(S) {
      visit_access<T>(wide<T>(n, {stream, branch, x0, before, y}), [&]<int N>(std::integral_constant<int, N>) {
        const auto run = [&]<int kHeld>(std::integral_constant<int, kHeld>) {
          const RowLaunch shape = stream_launch(rows, n, N, kHeld);
          launch(&residual_mix_kernel<S, T, N, kHeld>, shape.grid, shape.block, 0, stream_of_work, static_cast<S*>(stream),
                 static_cast<const T*>(branch), static_cast<const T*>(x0), a, b, static_cast<T*>(before), static_cast<T*>(y),
                 rstd, rows, static_cast<int>(n), eps);
        };
        const i64 accesses = (n + N - 1) / N;
        // A warp takes a row that it can hold: it sums without waiting for others.
        accesses <= 32 * kAccesses ? run(std::integral_constant<int, kAccesses>()) : visit_held(accesses, run);
      });
    });
  });
  check_launch("residual_mix");
}

i64 stream_partials(i64 rows) { return 2 * rows; }  // two for each block, which has a row at least

void residual_mix_backward(Element type, const MixBackward& arguments, i64 rows, i64 n, Stream stream) {
  if (rows == 0) return;
  visit(type, [&]<class T>(T) {
    const bool is_wide = wide<T>(n, {arguments.dy, arguments.y, arguments.gradient, arguments.before, arguments.x0,
                                     arguments.dx0});
    visit_access<T>(is_wide, [&]<int N>(std::integral_constant<int, N>) {
      visit_held((n + N - 1) / N, [&]<int kHeld>(std::integral_constant<int, kHeld>) {
        RowLaunch shape = stream_launch(rows, n, N, kHeld);
        const auto kernel = arguments.dy != nullptr ? &residual_mix_backward_kernel<T, N, kHeld, true>
                                                    : &residual_mix_backward_kernel<T, N, kHeld, false>;
        shape.grid.x = std::min(shape.grid.x, resident_blocks(kernel, shape.block));
        kernel<<<shape.grid, shape.block, 0, stream>>>(arguments, rows, static_cast<int>(n));
        add_partials_kernel<<<2, kSumThreads, 0, stream>>>(arguments.partials, shape.grid.x, arguments.d_a, arguments.d_b);
      });
    });
  });
  check_launch("residual_mix_backward");
}

void smear(Element type, const Smear& arguments, void* y, float* s, i64 rows, i64 n, Stream stream) {
  if (rows == 0) return;
  visit(type, [&]<class T>(T) {
    visit_access<T>(wide<T>(n, {arguments.x, arguments.previous, y}), [&]<int N>(std::integral_constant<int, N>) {
      const RowLaunch shape = stream_launch(rows, n, N);
      launch(&smear_kernel<T, N>, shape.grid, shape.block, 0, stream, arguments, static_cast<T*>(y), s, rows,
             static_cast<int>(n));
    });
  });
  check_launch("smear");
}

void smear_backward(Element type, const Smear& arguments, const void* dy, const float* s, void* dx, float* slopes,
                    float* d_lambda, float* partials, i64 rows, i64 n, Stream stream) {
  if (rows == 0) return;
  visit(type, [&]<class T>(T) {
    visit_access<T>(wide<T>(n, {arguments.x, dy, dx}), [&]<int N>(std::integral_constant<int, N>) {
      const RowLaunch shape = stream_launch(rows, n, N);
      smear_backward_kernel<T, N><<<shape.grid, shape.block, 0, stream>>>(arguments, static_cast<const T*>(dy), s,
                                                                          static_cast<T*>(dx), slopes, partials, rows,
                                                                          static_cast<int>(n));
      add_partials_kernel<<<1, kSumThreads, 0, stream>>>(partials, shape.grid.x, d_lambda, nullptr);
    });
  });
  check_launch("smear_backward");
}

}  // namespace nanochat::ops::cuda
