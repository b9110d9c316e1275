// Optimizer kernels: each reads and writes every state once.

#include "device_code.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <int N>
__global__ void adamw_kernel(float* __restrict__ p, const float* __restrict__ g, float* __restrict__ m, float* __restrict__ v,
                             bf16* __restrict__ copy, i64 n, AdamWStep step) {
  const i64 i = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  float gradients[N], firsts[N], seconds[N], values[N];
  load<N>(g + i, gradients);
  load<N>(m + i, firsts);
  load<N>(v + i, seconds);
  load<N>(p + i, values);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float gradient = gradients[j] * step.grad_scale;
    firsts[j] += (1.0F - step.beta1) * (gradient - firsts[j]);
    seconds[j] = seconds[j] * step.beta2 + (1.0F - step.beta2) * gradient * gradient;
    values[j] = values[j] * (1.0F - step.learning_rate * step.weight_decay) -
                step.learning_rate / step.bias1 * firsts[j] / (sqrtf(seconds[j]) / step.sqrt_bias2 + step.eps);
  }
  store<N>(m + i, firsts);
  store<N>(v + i, seconds);
  store<N>(p + i, values);
  if (copy != nullptr) store<N>(copy + i, values);
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

// ---- NorMuon. A block takes a row at a time.

constexpr float kSmallestNorm = 1e-6F, kSmallestMoment = 1e-10F;

template <class T>
__device__ inline float rounded(float x, T like) {
  from_float(x, like);
  return to_float(like);
}

template <class T, int N>
__global__ void normuon_momentum_kernel(MatrixPointers matrices, MatrixShape shape, T* __restrict__ batch,
                                        float* __restrict__ squares, float grad_scale, float momentum) {
  const i64 row = blockIdx.x, matrix = blockIdx.y, line = matrix * shape.rows + row;
  const float* __restrict__ g = matrices.gradient[matrix] + row * shape.columns;
  float* __restrict__ m = matrices.momentum[matrix] + row * shape.columns;
  T* out = batch + line * shape.columns;
  float sum = 0.0F;
  for (i64 i = static_cast<i64>(threadIdx.x) * N; i < shape.columns; i += static_cast<i64>(blockDim.x) * N) {
    float gradients[N], buffers[N];
    load<N>(g + i, gradients);
    load<N>(m + i, buffers);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float gradient = gradients[j] * grad_scale;
      buffers[j] += (1.0F - momentum) * (gradient - buffers[j]);
      gradients[j] = rounded(buffers[j] - (buffers[j] - gradient) * (1.0F - momentum), T());
      sum += gradients[j] * gradients[j];
    }
    store<N>(m + i, buffers);
    store<N>(out + i, gradients);
  }
  sum = row_sum(sum);
  if (threadIdx.x == 0) squares[line] = sum;
}

__global__ void sum_lines_kernel(const float* __restrict__ squares, i64 lines, float* __restrict__ totals) {
  float sum = 0.0F;
  for (i64 i = threadIdx.x; i < lines; i += blockDim.x) sum += squares[blockIdx.x * lines + i];
  sum = row_sum(sum);
  if (threadIdx.x == 0) totals[blockIdx.x] = sum;
}

// What a row is multiplied with, so that all have the same norm; of the type of the batch.
template <class T>
__device__ inline float equal_norm(float total, float square, i64 rows) {
  return rounded(sqrtf(total) / sqrtf(static_cast<float>(rows)) / fmaxf(sqrtf(square), kSmallestNorm), T());
}

// The sums of squares of the rows with equal norms, or those rows divided by the norm of the matrix.
template <class T, int N, bool kDivide>
__global__ void normuon_equal_rows_kernel(T* __restrict__ batch, MatrixShape shape, const float* __restrict__ squares,
                                          const float* __restrict__ totals, float* __restrict__ new_squares,
                                          const float* __restrict__ new_totals) {
  const i64 row = blockIdx.x, matrix = blockIdx.y, line = matrix * shape.rows + row;
  T* values = batch + line * shape.columns;
  const float factor = equal_norm<T>(totals[matrix], squares[line], shape.rows);
  float divisor = 1.0F;
  if constexpr (kDivide) divisor = rounded(rounded(rounded(sqrtf(new_totals[matrix]), T()) * 1.01F, T()) + 1e-6F, T());
  float sum = 0.0F;
  for (i64 i = static_cast<i64>(threadIdx.x) * N; i < shape.columns; i += static_cast<i64>(blockDim.x) * N) {
    float x[N];
    load<N>(values + i, x);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      x[j] = rounded(x[j] * factor, T());
      if constexpr (kDivide) {
        x[j] /= divisor;
      } else {
        sum += x[j] * x[j];
      }
    }
    if constexpr (kDivide) store<N>(values + i, x);
  }
  if constexpr (!kDivide) {
    sum = row_sum(sum);
    if (threadIdx.x == 0) new_squares[line] = sum;
  }
}

// Sums of squares of rows.
template <class T, int N>
__global__ void row_squares_kernel(const T* __restrict__ update, MatrixShape shape, float* __restrict__ squares) {
  const i64 line = static_cast<i64>(blockIdx.y) * shape.rows + blockIdx.x;
  float sum = 0.0F;
  for (i64 i = static_cast<i64>(threadIdx.x) * N; i < shape.columns; i += static_cast<i64>(blockDim.x) * N) {
    float x[N];
    load<N>(update + line * shape.columns + i, x);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += x[j] * x[j];
  }
  sum = row_sum(sum);
  if (threadIdx.x == 0) squares[line] = sum;
}

constexpr i64 kRowsOfPart = 64;

// Sums of squares of columns over kRowsOfPart rows.
template <class T>
__global__ void column_squares_kernel(const T* __restrict__ update, MatrixShape shape, float* __restrict__ partials) {
  const i64 column = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x, part = blockIdx.y, matrix = blockIdx.z;
  if (column >= shape.columns) return;
  const i64 end = min(shape.rows, (part + 1) * kRowsOfPart);
  float sum = 0.0F;
#pragma unroll 8
  for (i64 row = part * kRowsOfPart; row < end; ++row) {
    const float x = to_float(update[matrix * shape.rows * shape.columns + row * shape.columns + column]);
    sum += x * x;
  }
  partials[(matrix * gridDim.y + part) * shape.columns + column] = sum;
}

// A block for each matrix: from the squares of its lines to what each line is multiplied with.
__global__ void normuon_moments_kernel(NorMuonMoments moments, MatrixShape shape, const float* __restrict__ partials, i64 parts,
                                       float* __restrict__ factors, float beta2) {
  const i64 lines = max(shape.rows, shape.columns), length = min(shape.rows, shape.columns), matrix = blockIdx.x;
  const float* squares = partials + matrix * parts * lines;
  float* moment = moments.moment[matrix];
  float* factor = factors + matrix * lines;
  float sum = 0.0F;
  for (i64 line = threadIdx.x; line < lines; line += blockDim.x) {
    float square = 0.0F;
    for (i64 part = 0; part < parts; ++part) square += squares[part * lines + line];
    factor[line] = square;  // read again by this thread alone
    sum += square;
  }
  // Muon+ gives the matrix this norm; mean squares follow.
  const float scale = sqrtf(static_cast<float>(length)) / fmaxf(sqrtf(row_sum(sum)), kSmallestNorm);
  float before = 0.0F, after = 0.0F;
  for (i64 line = threadIdx.x; line < lines; line += blockDim.x) {
    const float mean = scale * scale * factor[line] / static_cast<float>(length);
    const float smoothed = moment[line] + (1.0F - beta2) * (mean - moment[line]);
    moment[line] = smoothed;
    const float damping = rsqrtf(fmaxf(smoothed, kSmallestMoment));
    factor[line] = scale * damping;
    before += mean;
    after += mean * damping * damping;
  }
  before = row_sum(before);
  after = row_sum(after);
  const float same_norm = sqrtf(static_cast<float>(length) * before) /
                          fmaxf(sqrtf(static_cast<float>(length) * after), kSmallestMoment);
  for (i64 line = threadIdx.x; line < lines; line += blockDim.x) factor[line] *= same_norm;
}

template <class T, int N, bool kByRow>
__global__ void normuon_apply_kernel(MatrixPointers matrices, MatrixShape shape, const T* __restrict__ update,
                                     const float* __restrict__ factors, NorMuonStep step) {
  const i64 row = blockIdx.x, matrix = blockIdx.y;
  const T* x = update + matrix * shape.rows * shape.columns + row * shape.columns;
  float* __restrict__ value = matrices.value[matrix] + row * shape.columns;
  auto* compute = static_cast<bf16*>(matrices.compute[matrix]);
  const float* factor = factors + matrix * (kByRow ? shape.rows : shape.columns);
  for (i64 i = static_cast<i64>(threadIdx.x) * N; i < shape.columns; i += static_cast<i64>(blockDim.x) * N) {
    float updates[N], values[N], scales[N];
    load<N>(x + i, updates);
    load<N>(value + i, values);
    if constexpr (!kByRow) load<N>(factor + i, scales);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float change = updates[j] * (kByRow ? factor[row] : scales[j]);
      const float decaying = change * values[j] >= 0.0F ? values[j] : 0.0F;
      values[j] -= step.rate * (change + step.weight_decay * decaying);
    }
    store<N>(value + i, values);
    if (compute != nullptr) store<N>(compute + row * shape.columns + i, values);
  }
}

// Calls body with the elements of an access: four where rows and pointers allow it.
template <class Body>
void visit_rows(const MatrixPointers& matrices, int count, const MatrixShape& shape, const Body& body) {
  bool wide = shape.columns % 4 == 0;
  for (int i = 0; i < count; ++i) {
    for (const void* p : {static_cast<const void*>(matrices.value[i]), static_cast<const void*>(matrices.gradient[i]),
                          static_cast<const void*>(matrices.momentum[i]), static_cast<const void*>(matrices.compute[i])}) {
      wide = wide && aligned(p);
    }
  }
  wide ? body(std::integral_constant<int, 4>()) : body(std::integral_constant<int, 1>());
}

// The squares of four numbers.
__device__ inline float squares(const float4& x) { return x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w; }

// A block takes kRunOfSquares elements of one tensor: float sums of short runs, added up in double.
__global__ void __launch_bounds__(kThreads) sum_of_squares_kernel(TensorList list, int count, double* __restrict__ partial) {
  int tensor = 0;  // the last one whose first block is not after this block
  for (int step = kTensorsPerLaunch / 2; step > 0; step /= 2) {
    if (tensor + step < count && list.first_block[tensor + step] <= blockIdx.x) tensor += step;
  }
  const i64 first = static_cast<i64>(blockIdx.x - list.first_block[tensor]) * kRunOfSquares;
  const i64 n = min(kRunOfSquares, list.size[tensor] - first);
  const float* __restrict__ x = list.x[tensor] + first;
  double total = 0.0;
  i64 done = 0;
  if (reinterpret_cast<std::uintptr_t>(x) % sizeof(float4) == 0) {
    constexpr int kLoads = 8;
    const auto* packs = reinterpret_cast<const float4*>(x);
    const i64 whole = n / (4 * kLoads * kThreads) * (kLoads * kThreads);
    for (i64 i = threadIdx.x; i < whole; i += kLoads * kThreads) {
      float4 loaded[kLoads];
#pragma unroll
      for (int load = 0; load < kLoads; ++load) loaded[load] = packs[i + load * kThreads];
      float sum = 0.0F;
#pragma unroll
      for (int load = 0; load < kLoads; ++load) sum += squares(loaded[load]);
      total += sum;
    }
    done = 4 * whole;
  }
  for (i64 i = done + threadIdx.x; i < n; i += kThreads) total += x[i] * x[i];
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
  const bool wide = n % 4 == 0 && aligned(p) && aligned(g) && aligned(m) && aligned(v) && aligned(copy);
  const auto kernel = wide ? &adamw_kernel<4> : &adamw_kernel<1>;
  kernel<<<blocks_for(wide ? n / 4 : n, kThreads), kThreads, 0, stream>>>(p, g, m, v, static_cast<bf16*>(copy), n, step);
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

void normuon_directions(Element type, const MatrixPointers& matrices, int count, const MatrixShape& shape, void* batch,
                        float* squares, float* totals, float grad_scale, float momentum, Stream stream) {
  const dim3 grid(static_cast<unsigned>(shape.rows), static_cast<unsigned>(count));
  float *new_squares = squares + count * shape.rows, *new_totals = totals + count;
  const auto sum_lines = [&](const float* of_rows, float* sums) {
    sum_lines_kernel<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(of_rows, shape.rows, sums);
  };
  visit(type, [&]<class T>(T) {
    visit_rows(matrices, count, shape, [&]<int N>(std::integral_constant<int, N>) {
      auto* x = static_cast<T*>(batch);
      normuon_momentum_kernel<T, N><<<grid, kThreads, 0, stream>>>(matrices, shape, x, squares, grad_scale, momentum);
      sum_lines(squares, totals);
      normuon_equal_rows_kernel<T, N, false><<<grid, kThreads, 0, stream>>>(x, shape, squares, totals, new_squares, nullptr);
      sum_lines(new_squares, new_totals);
      normuon_equal_rows_kernel<T, N, true><<<grid, kThreads, 0, stream>>>(x, shape, squares, totals, nullptr, new_totals);
    });
  });
  check_launch("normuon_directions");
}

i64 normuon_parts(const MatrixShape& shape) {
  return shape.rows >= shape.columns ? 1 : (shape.rows + kRowsOfPart - 1) / kRowsOfPart;
}

void normuon_apply(Element type, const MatrixPointers& matrices, const NorMuonMoments& moments, int count,
                   const MatrixShape& shape, const void* update, float* partials, float* factors, const NorMuonStep& step,
                   Stream stream) {
  constexpr int kMomentThreads = 1024;
  const bool by_row = shape.rows >= shape.columns;
  const i64 parts = normuon_parts(shape);
  const dim3 grid(static_cast<unsigned>(shape.rows), static_cast<unsigned>(count));
  visit(type, [&]<class T>(T) {
    visit_rows(matrices, count, shape, [&]<int N>(std::integral_constant<int, N>) {
      const auto* x = static_cast<const T*>(update);
      if (by_row) {
        row_squares_kernel<T, N><<<grid, kThreads, 0, stream>>>(x, shape, partials);
      } else {
        column_squares_kernel<T>
            <<<dim3(blocks_for(shape.columns, kThreads), static_cast<unsigned>(parts), static_cast<unsigned>(count)), kThreads,
               0, stream>>>(x, shape, partials);
      }
      normuon_moments_kernel<<<static_cast<unsigned>(count), kMomentThreads, 0, stream>>>(moments, shape, partials, parts,
                                                                                          factors, step.beta2);
      const auto apply = by_row ? &normuon_apply_kernel<T, N, true> : &normuon_apply_kernel<T, N, false>;
      apply<<<grid, kThreads, 0, stream>>>(matrices, shape, x, factors, step);
    });
  });
  check_launch("normuon_apply");
}

void sum_of_squares(const TensorList& list, int count, unsigned blocks, double* partial, Stream stream) {
  if (blocks == 0) return;
  sum_of_squares_kernel<<<blocks, kThreads, 0, stream>>>(list, count, partial);
  check_launch("sum_of_squares");
}

}  // namespace nanochat::ops::cuda
