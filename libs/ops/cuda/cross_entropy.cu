// Soft-cap, cross-entropy and its gradient over one row of logits a block.
//
// The row is passed over twice. The first pass takes the sum and leaves each logit's part of the gradient in its place, up to
// a factor that is known only with the sum; the second pass multiplies it, from the L2 cache. Holding the row in registers
// instead would leave room for one block a multiprocessor only, whose loads nothing then hides. What bounds the kernel are
// the special functions, three for a logit, and memory. In bfloat16, the gradient is rounded in both passes.

#include "logit_extremes.cuh"

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
// Through one exponential: absolute error about 1e-7, exact at both ends, NaN stays NaN.
__device__ inline float exact_tanh(float x) { return 1.0F - 2.0F * reciprocal(power_of_two(2.0F * kLog2E * x) + 1.0F); }

// `inverse`: 1 / cap; cap <= 0: not capped.
__device__ inline float capped(float raw, float cap, float inverse) {
  return cap <= 0.0F ? raw : cap * exact_tanh(raw * inverse);
}

// exp(capped logit - shift), and the derivative of the capped logit by the raw one.
struct Share {
  float power, slope;
};
// kBounded: 0 < cap, which is the shift. With r = 1 / (exp(2 raw / cap) + 1), the capped logit is cap (1 - 2r).
template <bool kBounded>
__device__ inline Share share_of(float raw, float cap, float inverse, float shift) {
  if constexpr (kBounded) {
    const float r = reciprocal(power_of_two(2.0F * kLog2E * inverse * raw) + 1.0F);
    return {power_of_two(-2.0F * kLog2E * cap * r), 4.0F * r * (1.0F - r)};
  }
  const float u = cap <= 0.0F ? 0.0F : exact_tanh(raw * inverse);
  return {power_of_two((capped(raw, cap, inverse) - shift) * kLog2E), 1.0F - u * u};
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
  const float at_target = target < vocab ? to_float(logits[target]) : __int_as_float(0x7fc00000);
  __syncthreads();  // every thread has read it before any overwrites it

  float shift = cap;
  if constexpr (!kBounded) {
    float maximum = kLowest;
    for_each_pack<N>(logits, vocab, [&](const float(&values)[N], int, int count) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (j < count) maximum = fmaxf(maximum, capped(values[j], cap, inverse));
      }
    });
    shift = row_max(maximum);
  }
  const bool wants_gradient = scale != nullptr;
  float sum = 0.0F;
  for_each_pack<N>(logits, vocab, [&](const float(&values)[N], int i, int count) {
    float out[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const Share share = share_of<kBounded>(values[j], cap, inverse, shift);
      if (j < count) sum += share.power;
      out[j] = share.power * share.slope;
    }
    if (wants_gradient) store<N>(logits + i, out);
  });
  sum = row_sum(sum);
  if (threadIdx.x == 0) losses[blockIdx.x] = shift + logf(sum) - capped(at_target, cap, inverse);
  if (!wants_gradient) return;

  const float factor = scale[blockIdx.x], weight = factor / sum;
  // Each thread reads what it has written itself.
  for_each_pack<N>(logits, padded, [&](const float(&values)[N], int i, int) {
    float out[N];
#pragma unroll
    for (int j = 0; j < N; ++j) out[j] = values[j] * weight;
    if (i + N > vocab) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (i + j >= vocab) out[j] = 0.0F;
      }
    }
    store<N>(logits + i, out);
    if (target >= i && target < i + N) {
      const Share share = share_of<kBounded>(at_target, cap, inverse, shift);
      from_float((share.power * weight - factor) * share.slope, logits[target]);
    }
  });
}

// A block has a slice of a row (logit_extremes.cuh).
template <class T, int N>
__global__ void __launch_bounds__(kSliceThreads)
    softcap_kernel(const T* z, float* out, LogitExtremes* extremes, int vocab, i64 padded, float cap) {
  let_next_begin();
  wait_for_previous();
  const i64 row = blockIdx.y;
  SliceExtremes own;
#pragma unroll
  for (int first = 0; first < kSliceTokens; first += kSliceThreads * N) {
    const int i = static_cast<int>(blockIdx.x) * kSliceTokens + first + static_cast<int>(threadIdx.x) * N;
    if (i >= vocab) break;
    float values[N];
    load<N>(z + row * padded + i, values);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      values[j] = cap > 0.0F ? cap * tanhf(values[j] / cap) : values[j];
      own.see(i + j, values[j]);
    }
    store<N>(out + row * vocab + i, values);
  }
  if (extremes != nullptr) own.store(extremes + row * gridDim.x + blockIdx.x);
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

void softcap(Element type, const void* z, float* out, LogitExtremes* extremes, i64 rows, i64 vocab, i64 padded, float cap,
             Stream stream) {
  constexpr i64 kRowsPerLaunch = 65535;  // the grid's limit
  const auto slices = static_cast<unsigned>(logit_slices(vocab));
  visit(type, [&]<class T>(T) {
    const auto run = [&]<int N>(std::integral_constant<int, N>) {
      for (i64 first = 0; first < rows; first += kRowsPerLaunch) {
        const i64 n = rows - first < kRowsPerLaunch ? rows - first : kRowsPerLaunch;
        LogitExtremes* const to = extremes == nullptr ? nullptr : extremes + first * slices;
        launch(&softcap_kernel<T, N>, dim3(slices, static_cast<unsigned>(n)), kSliceThreads, 0, stream,
               static_cast<const T*>(z) + first * padded, out + first * vocab, to, static_cast<int>(vocab), padded, cap);
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
