// Optimizer kernels: each reads and writes every state once.

#include "device_code.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void adamw_kernel(float* __restrict__ p, const float* __restrict__ g, float* __restrict__ m, float* __restrict__ v,
                             bf16* __restrict__ copy, i64 n, AdamWStep step) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float gradient = g[i] * step.grad_scale;
  const float first = m[i] + (1.0F - step.beta1) * (gradient - m[i]);
  const float second = v[i] * step.beta2 + (1.0F - step.beta2) * gradient * gradient;
  m[i] = first;
  v[i] = second;
  const float value = p[i] * (1.0F - step.learning_rate * step.weight_decay) -
                      step.learning_rate / step.bias1 * first / (sqrtf(second) / step.sqrt_bias2 + step.eps);
  p[i] = value;
  if (copy != nullptr) copy[i] = __float2bfloat16_rn(value);
}

template <class T>
__global__ void muon_momentum_kernel(MatrixPointers matrices, i64 size, T* __restrict__ batch, float* __restrict__ partial,
                                     float grad_scale, float momentum, bool nesterov) {
  const int matrix = static_cast<int>(blockIdx.y);
  const float* __restrict__ g = matrices.gradient[matrix];
  float* __restrict__ m = matrices.momentum[matrix];
  T* out = batch + matrix * size;
  float sum = 0.0F;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += static_cast<i64>(gridDim.x) * blockDim.x) {
    const float gradient = g[i] * grad_scale;
    const float updated = m[i] + (1.0F - momentum) * (gradient - m[i]);
    m[i] = updated;
    T direction;
    from_float(nesterov ? updated - (updated - gradient) * (1.0F - momentum) : updated, direction);
    out[i] = direction;
    sum += to_float(direction) * to_float(direction);
  }
  sum = row_sum(sum);
  if (threadIdx.x == 0) partial[matrix * gridDim.x + blockIdx.x] = sum;
}

template <class T>
__global__ void muon_normalise_kernel(T* __restrict__ batch, const float* __restrict__ partial, i64 size) {
  const int matrix = static_cast<int>(blockIdx.y);
  float sum = 0.0F;
  for (int i = 0; i < kBlocksPerMatrix; ++i) sum += partial[matrix * kBlocksPerMatrix + i];
  T norm;  // rounded as the batch is, like the reference's
  from_float(sqrtf(sum), norm);
  from_float(to_float(norm) + 1e-7F, norm);
  const float divisor = to_float(norm);
  T* values = batch + matrix * size;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += static_cast<i64>(gridDim.x) * blockDim.x) {
    from_float(to_float(values[i]) / divisor, values[i]);
  }
}

template <class T>
__global__ void muon_apply_kernel(MatrixPointers matrices, const T* __restrict__ update, i64 size, float rate) {
  const int matrix = static_cast<int>(blockIdx.y);
  float* __restrict__ value = matrices.value[matrix];
  auto* __restrict__ compute = static_cast<bf16*>(matrices.compute[matrix]);
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += static_cast<i64>(gridDim.x) * blockDim.x) {
    const float changed = value[i] - rate * to_float(update[matrix * size + i]);
    value[i] = changed;
    if (compute != nullptr) compute[i] = __float2bfloat16_rn(changed);
  }
}

__global__ void sum_of_squares_kernel(const float* __restrict__ x, i64 n, double* __restrict__ partial) {
  // Float sums of short runs, added up in double.
  double total = 0.0;
  const i64 stride = static_cast<i64>(gridDim.x) * blockDim.x;
  i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  while (i < n) {
    float sum = 0.0F;
#pragma unroll 4
    for (int run = 0; run < 16 && i < n; ++run, i += stride) sum += x[i] * x[i];
    total += sum;
  }
  __shared__ double sums[kThreads];
  sums[threadIdx.x] = total;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

}  // namespace

void adamw(float* p, const float* g, float* m, float* v, void* copy, i64 n, const AdamWStep& step, Stream stream) {
  if (n == 0) return;
  adamw_kernel<<<blocks_for(n, kThreads), kThreads, 0, stream>>>(p, g, m, v, static_cast<bf16*>(copy), n, step);
  check_launch("adamw");
}

void muon_momentum(Element type, const MatrixPointers& matrices, int count, i64 size, void* batch, float* partial,
                   float grad_scale, float momentum, bool nesterov, Stream stream) {
  visit(type, [&]<class T>(T) {
    muon_momentum_kernel<T><<<dim3(kBlocksPerMatrix, static_cast<unsigned>(count)), kThreads, 0, stream>>>(
        matrices, size, static_cast<T*>(batch), partial, grad_scale, momentum, nesterov);
  });
  check_launch("muon_momentum");
}

void muon_normalise(Element type, void* batch, const float* partial, int count, i64 size, Stream stream) {
  visit(type, [&]<class T>(T) {
    muon_normalise_kernel<T>
        <<<dim3(kBlocksPerMatrix, static_cast<unsigned>(count)), kThreads, 0, stream>>>(static_cast<T*>(batch), partial, size);
  });
  check_launch("muon_normalise");
}

void muon_apply(Element type, const MatrixPointers& matrices, const void* update, int count, i64 size, float rate,
                Stream stream) {
  visit(type, [&]<class T>(T) {
    muon_apply_kernel<T>
        <<<dim3(kBlocksPerMatrix, static_cast<unsigned>(count)), kThreads, 0, stream>>>(matrices, static_cast<const T*>(update),
                                                                                        size, rate);
  });
  check_launch("muon_apply");
}

void sum_of_squares(const float* x, i64 n, double* partial, int blocks, Stream stream) {
  sum_of_squares_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(x, n, partial);
  check_launch("sum_of_squares");
}

}  // namespace nanochat::ops::cuda
