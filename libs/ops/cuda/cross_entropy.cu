// Soft-cap, cross-entropy and its gradient over one row of logits a block.
//
// The row is read twice, for the sum and for the gradient; the second time it comes from the L2 cache. Holding it in
// registers instead would leave room for one block a multiprocessor only, whose loads nothing then hides. What bounds
// the kernel are the special functions: two for a tanh and one for an exponential in the pass that the loss comes
// from; in the pass for bfloat16 gradients the hardware's own tanh does, whose error of 2^-11 disappears in rounding.

#include "device_code.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = 1024;
// Blocks that share a multiprocessor: two, where it holds 2,048 threads; 1,536 is all that the small chips of a
// generation (8.6, 8.7, 8.9, 12.x) have.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 870 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200)
constexpr int kBlocks = 1;
#else
constexpr int kBlocks = 2;
#endif
constexpr float kLog2E = 1.44269504088896341F;
constexpr float kLowest = -3.4e38F;
// exp(t - cap) for t in [-cap, cap] neither overflows nor, for caps below this, vanishes: no pass for the maximum.
constexpr float kBoundedCap = 40.0F;

__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float approximate_tanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// Through one exponential: absolute error about 1e-7, exact at both ends, NaN stays NaN.
__device__ inline float exact_tanh(float x) { return 1.0F - 2.0F * reciprocal(power_of_two(2.0F * kLog2E * x) + 1.0F); }

// The capped logit and its derivative by the raw one. `inverse`: 1 / cap; cap <= 0: not capped.
struct Capped {
  float value, slope;
};
template <bool kApproximate>
__device__ inline Capped capped(float raw, float cap, float inverse) {
  if (cap <= 0.0F) return {raw, 1.0F};
  const float u = kApproximate ? approximate_tanh(raw * inverse) : exact_tanh(raw * inverse);
  return {cap * u, 1.0F - u * u};
}

// Calls body(values, index of the first, how many of them are below `end`) for this thread's part of a row.
template <int N, class T, class Body>
__device__ inline void for_each_pack(const T* row, int end, const Body& body) {
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) * N; i < end; i += kThreads * N) {
    float values[N];
    load<N>(row + i, values);
    body(values, i, end - i);
  }
}

// kBounded: 0 < cap < kBoundedCap.
template <class T, bool kBounded>
__global__ void __launch_bounds__(kThreads, kBlocks)
    softcap_cross_entropy_kernel(T* __restrict__ z, const std::int32_t* __restrict__ targets, const float* __restrict__ scale,
                                 float* __restrict__ losses, int vocab, int padded, float cap) {
  constexpr int N = kPackSize<T>;
  constexpr bool kApproximate = sizeof(T) == 2;
  if constexpr (kBounded) __builtin_assume(cap > 0.0F);
  T* logits = z + static_cast<i64>(blockIdx.x) * padded;
  const int target = targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0.0F;
    if (scale == nullptr) return;
    const float zeros[N] = {};
    for (int i = static_cast<int>(threadIdx.x) * N; i < padded; i += kThreads * N) store<N>(logits + i, zeros);
    return;
  }
  const float inverse = cap > 0.0F ? 1.0F / cap : 0.0F;
  // Read by every thread before any overwrites it: the barriers of row_sum stand in between.
  const float at_target = target < vocab ? to_float(logits[target]) : __int_as_float(0x7fc00000);

  float shift = cap;
  if constexpr (!kBounded) {
    float maximum = kLowest;
    for_each_pack<N>(logits, vocab, [&](const float(&values)[N], int, int count) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (j < count) maximum = fmaxf(maximum, capped<false>(values[j], cap, inverse).value);
      }
    });
    shift = row_max(maximum);
  }
  float sum = 0.0F;
  for_each_pack<N>(logits, vocab, [&](const float(&values)[N], int, int count) {
    if (count >= N) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sum += power_of_two((capped<false>(values[j], cap, inverse).value - shift) * kLog2E);
      }
    } else {
      for (int j = 0; j < count; ++j) {
        sum += power_of_two((capped<false>(values[j], cap, inverse).value - shift) * kLog2E);
      }
    }
  });
  sum = row_sum(sum);
  const Capped wanted = capped<false>(at_target, cap, inverse);
  if (threadIdx.x == 0) losses[blockIdx.x] = shift + logf(sum) - wanted.value;
  if (scale == nullptr) return;

  const float factor = scale[blockIdx.x], weight = factor / sum;
  for_each_pack<N>(logits, padded, [&](const float(&values)[N], int i, int) {
    float out[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const Capped c = capped<kApproximate>(values[j], cap, inverse);
      out[j] = power_of_two((c.value - shift) * kLog2E) * weight * c.slope;
    }
    if (i + N > vocab) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (i + j >= vocab) out[j] = 0.0F;
      }
    }
    store<N>(logits + i, out);
    if (target >= i && target < i + N) {
      const float p = power_of_two((wanted.value - shift) * kLog2E) * weight;
      from_float((p - factor) * wanted.slope, logits[target]);
    }
  });
}

template <class T, int N>
__global__ void softcap_kernel(const T* z, float* out, int vocab, i64 padded, float cap) {
  let_next_begin();
  wait_for_previous();
  const i64 row = blockIdx.y;
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (i >= vocab) return;
  float values[N];
  load<N>(z + row * padded + i, values);
#pragma unroll
  for (int j = 0; j < N; ++j) values[j] = cap > 0.0F ? cap * tanhf(values[j] / cap) : values[j];
  store<N>(out + row * vocab + i, values);
}

}  // namespace

void softcap_cross_entropy(Element type, void* z, const std::int32_t* targets, const float* scale, float* losses, i64 rows,
                           i64 vocab, i64 padded, float cap, Stream stream) {
  if (rows == 0) return;
  visit(type, [&]<class T>(T) {
    if (padded % kPackSize<T> != 0 || !aligned(z)) {
      throw std::runtime_error("softcap_cross_entropy: rows must be padded to 16 bytes");
    }
    const auto kernel = cap > 0.0F && cap < kBoundedCap ? softcap_cross_entropy_kernel<T, true>
                                                        : softcap_cross_entropy_kernel<T, false>;
    kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(static_cast<T*>(z), targets, scale, losses,
                                                                 static_cast<int>(vocab), static_cast<int>(padded), cap);
  });
  check_launch("softcap_cross_entropy");
}

void softcap(Element type, const void* z, float* out, i64 rows, i64 vocab, i64 padded, float cap, Stream stream) {
  constexpr i64 kRowsPerLaunch = 65535;  // the grid's limit
  constexpr int kColumns = 256;
  visit(type, [&]<class T>(T) {
    const auto run = [&]<int N>(std::integral_constant<int, N>) {
      for (i64 first = 0; first < rows; first += kRowsPerLaunch) {
        const i64 n = rows - first < kRowsPerLaunch ? rows - first : kRowsPerLaunch;
        launch(&softcap_kernel<T, N>, dim3(blocks_for(vocab, kColumns * N), static_cast<unsigned>(n)), kColumns, 0, stream,
               static_cast<const T*>(z) + first * padded, out + first * vocab, static_cast<int>(vocab), padded, cap);
      }
    };
    constexpr int N = 4;
    if (vocab % N == 0 && padded % N == 0 && aligned(z) && aligned(out)) {
      run(std::integral_constant<int, N>());
    } else {
      run(std::integral_constant<int, 1>());
    }
  });
  check_launch("softcap");
}

}  // namespace nanochat::ops::cuda
