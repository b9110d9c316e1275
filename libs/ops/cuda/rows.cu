// Kernels over rows: norms, rotary embedding, activation, rows of the embedding. All are bound by memory: every element is read
// once, 16 bytes at a time where rows allow it, and a row stays in registers between its sum and its use.

#include "device_code.cuh"
#include "e4m3.cuh"

namespace nanochat::ops::cuda {
namespace {

template <class S, class T, int N, bool kAdd>
__global__ void rms_norm_kernel(const T* x, S* residual, T* y, float* rstd, i64 rows, int n, float eps) {
  let_next_begin();
  wait_for_previous();
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const i64 offset = row * n;
  // All loads of the row are under way before anything is stored.
  Pack<T, N> packs[kAccesses];
  Pack<S, N> before[kAdd ? kAccesses : 1];
#pragma unroll
  for (int a = 0; a < kAccesses; ++a) {
    const int i = (a * blockDim.x + threadIdx.x) * N;
    if (i >= n) continue;
    packs[a] = *reinterpret_cast<const Pack<T, N>*>(x + offset + i);
    if constexpr (kAdd) before[a] = *reinterpret_cast<const Pack<S, N>*>(residual + offset + i);
  }
  float values[kAccesses][N];
  float sum = 0.0F;
#pragma unroll
  for (int a = 0; a < kAccesses; ++a) {
    const int i = (a * blockDim.x + threadIdx.x) * N;
    if (i >= n) continue;
    if constexpr (kAdd) {
#pragma unroll
      for (int j = 0; j < N; ++j) from_float(to_float(before[a].v[j]) + to_float(packs[a].v[j]), before[a].v[j]);
      *reinterpret_cast<Pack<S, N>*>(residual + offset + i) = before[a];
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if constexpr (kAdd) {
        values[a][j] = to_float(before[a].v[j]);  // the norm is that of what is stored
      } else {
        values[a][j] = to_float(packs[a].v[j]);
      }
      sum += values[a][j] * values[a][j];
    }
  }
  const float scale = rsqrtf(row_sum(sum) / static_cast<float>(n) + eps);
#pragma unroll
  for (int a = 0; a < kAccesses; ++a) {
    const int i = (a * blockDim.x + threadIdx.x) * N;
    if (i >= n) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) values[a][j] *= scale;
    store<N>(y + offset + i, values[a]);
  }
  if (rstd != nullptr && threadIdx.x == 0) rstd[row] = scale;
}

template <class T, int N, bool kAccumulate>
__global__ void rms_norm_backward_kernel(const T* __restrict__ dy, const T* __restrict__ y, const float* __restrict__ rstd,
                                         T* __restrict__ dx, i64 rows, int n) {
  const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const i64 offset = row * n;
  // Packed until they are used, so that all loads of the row are under way at once.
  Pack<T, N> gradients[kAccesses], outputs[kAccesses], before[kAccesses];
#pragma unroll
  for (int a = 0; a < kAccesses; ++a) {
    const int i = (a * blockDim.x + threadIdx.x) * N;
    if (i >= n) continue;
    gradients[a] = *reinterpret_cast<const Pack<T, N>*>(dy + offset + i);
    outputs[a] = *reinterpret_cast<const Pack<T, N>*>(y + offset + i);
    if constexpr (kAccumulate) before[a] = *reinterpret_cast<const Pack<T, N>*>(dx + offset + i);
  }
  const float scale = rstd[row];
  float sum = 0.0F;
#pragma unroll
  for (int a = 0; a < kAccesses; ++a) {
    const int i = (a * blockDim.x + threadIdx.x) * N;
    if (i >= n) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) sum += to_float(gradients[a].v[j]) * to_float(outputs[a].v[j]);
  }
  const float mean = row_sum(sum) / static_cast<float>(n);
#pragma unroll
  for (int a = 0; a < kAccesses; ++a) {
    const int i = (a * blockDim.x + threadIdx.x) * N;
    if (i >= n) continue;
    float out[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      out[j] = scale * (to_float(gradients[a].v[j]) - to_float(outputs[a].v[j]) * mean);
      if constexpr (kAccumulate) out[j] += to_float(before[a].v[j]);
    }
    store<N>(dx + offset + i, out);
  }
}

// Rotated pairs: x1, x2 are d/2 apart. L lanes, N pairs each, take all heads of one token in turn, so that its angles
// are loaded once.
struct Group {
  i64 token;
  int first;  // pair of this lane
  bool live;  // groups beyond the last token compute it again, since a warp shuffles as a whole, but store nothing
};
template <int N, int L>
__device__ inline Group group_of(const RopeShape& shape) {
  const i64 index = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / L, tokens = shape.batch * shape.time;
  const int first = static_cast<int>(threadIdx.x % L) * N;
  return {index < tokens ? index : tokens - 1, first, index < tokens && first < shape.d / 2};
}

template <class T, int N, int L>
__global__ void rope_norm_kernel(const T* __restrict__ qkv, const float* __restrict__ cos, const float* __restrict__ sin,
                                 const i64* __restrict__ start, T* __restrict__ q, T* __restrict__ k, float* __restrict__ rstd,
                                 RopeShape shape, float eps) {
  const auto [token, i, live] = group_of<N, L>(shape);
  const i64 heads = shape.n_head + shape.n_kv_head;
  const int half = static_cast<int>(shape.d / 2);
  const bool inside = i < half;
  const i64 position = token % shape.time + (start != nullptr ? start[token / shape.time] : 0);
  float c[N] = {}, s[N] = {};
  if (inside) {
    load<N>(cos + position * half + i, c);
    load<N>(sin + position * half + i, s);
  }
  const T* x = qkv + token * (heads + shape.n_kv_head) * shape.d;
#pragma unroll 4
  for (i64 head = 0; head < heads; ++head, x += shape.d) {
    float x1[N] = {}, x2[N] = {};
    if (inside) {
      load<N>(x + i, x1);
      load<N>(x + half + i, x2);
    }
    float sum = 0.0F;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float first = x1[j] * c[j] + x2[j] * s[j];
      x2[j] = x2[j] * c[j] - x1[j] * s[j];
      x1[j] = first;
      sum += x1[j] * x1[j] + x2[j] * x2[j];
    }
    // The norm is that of the rotated head: a table rounded to bfloat16 does not quite rotate, it changes lengths.
    const float scale = rsqrtf(group_sum<L>(sum) / static_cast<float>(shape.d) + eps);
    if (!live) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      x1[j] *= scale;
      x2[j] *= scale;
    }
    T* y = head < shape.n_head ? q + (token * shape.n_head + head) * shape.d
                               : k + (token * shape.n_kv_head + head - shape.n_head) * shape.d;
    store<N>(y + i, x1);
    store<N>(y + half + i, x2);
    if (rstd != nullptr && i == 0) rstd[token * heads + head] = scale;
  }
}

template <class T, int N, int L>
__global__ void rope_norm_backward_kernel(const T* __restrict__ dq, const T* __restrict__ dk, const T* __restrict__ dv,
                                          const T* __restrict__ q, const T* __restrict__ k, const float* __restrict__ rstd,
                                          const float* __restrict__ cos, const float* __restrict__ sin, T* __restrict__ dqkv,
                                          RopeShape shape) {
  const auto [token, i, live] = group_of<N, L>(shape);
  const i64 heads = shape.n_head + shape.n_kv_head;
  const int half = static_cast<int>(shape.d / 2);
  const bool inside = i < half;
  const i64 position = token % shape.time;
  float c[N] = {}, s[N] = {};
  if (inside) {
    load<N>(cos + position * half + i, c);
    load<N>(sin + position * half + i, s);
  }
  T* dx = dqkv + token * (heads + shape.n_kv_head) * shape.d;
#pragma unroll 2
  for (i64 head = 0; head < heads; ++head, dx += shape.d) {
    const bool query = head < shape.n_head;
    const i64 offset = query ? (token * shape.n_head + head) * shape.d
                             : (token * shape.n_kv_head + head - shape.n_head) * shape.d;
    const T* dy = (query ? dq : dk) + offset;
    const T* y = (query ? q : k) + offset;
    float d1[N] = {}, d2[N] = {}, y1[N] = {}, y2[N] = {};
    if (inside) {
      load<N>(dy + i, d1);
      load<N>(dy + half + i, d2);
      load<N>(y + i, y1);
      load<N>(y + half + i, y2);
    }
    float sum = 0.0F;
#pragma unroll
    for (int j = 0; j < N; ++j) sum += d1[j] * y1[j] + d2[j] * y2[j];
    const float mean = group_sum<L>(sum) / static_cast<float>(shape.d);
    if (!live) continue;
    const float scale = rstd[token * heads + head];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float first = scale * (d1[j] - y1[j] * mean);
      const float second = scale * (d2[j] - y2[j] * mean);
      d1[j] = first * c[j] - second * s[j];
      d2[j] = first * s[j] + second * c[j];
    }
    store<N>(dx + i, d1);
    store<N>(dx + half + i, d2);
  }
  if (!live) return;
  const T* values = dv + token * shape.n_kv_head * shape.d;
#pragma unroll 4
  for (i64 head = 0; head < shape.n_kv_head; ++head, dx += shape.d, values += shape.d) {
    *reinterpret_cast<Pack<T, N>*>(dx + i) = *reinterpret_cast<const Pack<T, N>*>(values + i);
    *reinterpret_cast<Pack<T, N>*>(dx + half + i) = *reinterpret_cast<const Pack<T, N>*>(values + half + i);
  }
}

// The same for serving, where tokens are few: L lanes take one head of one token, and keys and values go to their slots.
// C: of the cache.
template <class T, class C, int N, int L>
__global__ void rope_norm_store_kernel(const T* qkv, const float* cos, const float* sin, const std::int32_t* positions,
                                       const std::int32_t* slots, T* q, C* keys, C* values, PagedShape shape, float eps) {
  let_next_begin();
  wait_for_previous();
  const int heads = shape.n_head + 2 * shape.n_kv_head, all = shape.tokens * heads;
  const int index = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / L);
  const int row = min(index, all - 1);  // a warp shuffles as a whole
  const int token = row / heads, head = row % heads;
  const int half = shape.d / 2, i = static_cast<int>(threadIdx.x % L) * N;
  const bool inside = i < half, live = index < all && inside;
  const T* x = qkv + static_cast<i64>(row) * shape.d;
  float x1[N] = {}, x2[N] = {}, c[N] = {}, s[N] = {};
  if (inside) {
    const i64 angle = static_cast<i64>(positions[token]) * half + i;
    load<N>(x + i, x1);
    load<N>(x + half + i, x2);
    load<N>(cos + angle, c);
    load<N>(sin + angle, s);
  }
  const bool rotated = head < shape.n_head + shape.n_kv_head;
  if (rotated) rotate(x1, x2, c, s);
  normalise_head<L>(x1, x2, rotated, shape.d, eps);
  const int slot = slots[token];
  if (!live || (slot < 0 && head >= shape.n_head)) return;
  const auto write = [&](auto* to) {
    store<N>(to + i, x1);
    store<N>(to + half + i, x2);
  };
  if (head < shape.n_head) return write(q + (static_cast<i64>(token) * shape.n_head + head) * shape.d);
  write((rotated ? keys : values) + cache_offset(shape, slot, head - shape.n_head - (rotated ? 0 : shape.n_kv_head)));
}

// Calls body with the pairs a lane takes and the lanes a head: 16-byte accesses where halves of heads are multiples of
// them, otherwise single elements.
template <class T, class Body>
void visit_lanes(i64 d, bool wide, const Body& body) {
  const i64 half = d / 2;
  constexpr int N = kPackSize<T>;
  const auto with = [&]<int kPairs>(std::integral_constant<int, kPairs> pairs) {
    const i64 lanes = (half + kPairs - 1) / kPairs;
    if (lanes <= 4) return body(pairs, std::integral_constant<int, 4>());
    if (lanes <= 8) return body(pairs, std::integral_constant<int, 8>());
    if (lanes <= 16) return body(pairs, std::integral_constant<int, 16>());
    if (lanes <= 32) return body(pairs, std::integral_constant<int, 32>());
    throw std::runtime_error("the CUDA rotary kernels do not take heads of " + std::to_string(d));
  };
  if (wide && half % N == 0) {
    with(std::integral_constant<int, N>());
  } else {
    with(std::integral_constant<int, 1>());
  }
}

constexpr int kThreads = 256;

// y of the forward pass; or the gradient of x from dy and that y, which is given as x.
template <class T, int N, bool kBackward>
__global__ void relu_squared_kernel(const T* dy, const T* x, T* y, i64 n) {
  let_next_begin();
  wait_for_previous();
  const i64 i = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  float values[N], gradients[N];
  load<N>(x + i, values);
  if constexpr (kBackward) load<N>(dy + i, gradients);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    if constexpr (kBackward) {
      values[j] = gradients[j] * 2.0F * sqrtf(values[j]);
    } else {
      const float positive = values[j] < 0.0F ? 0.0F : values[j];  // keeps a NaN
      values[j] = positive * positive;
    }
  }
  store<N>(y + i, values);
}

// A row is shared out among several blocks, each of which reads the row of x.
template <class T, int N>
__global__ void relu_squared_normalised_kernel(const T* x, T* y, int n, int m, float eps) {
  let_next_begin();
  wait_for_previous();
  const i64 row = blockIdx.y;
  float sum = 0.0F;
  for (int i = static_cast<int>(threadIdx.x) * N; i < n; i += kThreads * N) {
    float values[N];
    load<N>(x + row * n + i, values);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += values[j] * values[j];
  }
  const float square = 1.0F / (row_sum(sum) / static_cast<float>(n) + eps);
  const int i = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) * N;
  if (i >= m) return;
  float values[N];
  load<N>(y + row * m + i, values);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float positive = values[j] < 0.0F ? 0.0F : values[j];  // keeps a NaN
    values[j] = positive * positive * square;
  }
  store<N>(y + row * m + i, values);
}

template <bool kBackward>
void launch_relu_squared(Element type, const void* dy, const void* x, void* y, i64 n, Stream stream) {
  if (n == 0) return;
  visit(type, [&]<class T>(T) {
    const bool wide = n % kPackSize<T> == 0 && aligned(x) && aligned(y) && (dy == nullptr || aligned(dy));
    const auto* from = static_cast<const T*>(x);
    const auto* gradient = static_cast<const T*>(dy);
    auto* to = static_cast<T*>(y);
    if (wide) {
      launch(&relu_squared_kernel<T, kPackSize<T>, kBackward>, blocks_for(n, kThreads * kPackSize<T>), kThreads, 0, stream,
             gradient, from, to, n);
    } else {
      launch(&relu_squared_kernel<T, 1, kBackward>, blocks_for(n, kThreads), kThreads, 0, stream, gradient, from, to, n);
    }
  });
  check_launch("relu_squared");
}

template <class T>
__global__ void embedding_kernel(const T* __restrict__ table, i64 rows, const std::int32_t* __restrict__ ids, T* __restrict__ y,
                                 i64 width) {
  const i64 token = blockIdx.x;
  const std::int32_t id = ids[token];
  const bool known = id >= 0 && id < rows;
  for (i64 i = threadIdx.x; i < width; i += blockDim.x) {
    T value;
    if (known) {
      value = table[id * width + i];
    } else {
      from_float(__int_as_float(0x7fc00000), value);
    }
    y[token * width + i] = value;
  }
}

// The beginning of a pass for serving. A thread keeps up to kAccesses packs of its row.
template <class T, int N>
__global__ void embedding_rms_norm_kernel(const T* table, i64 rows, const std::int32_t* inputs, const std::int32_t* drawn,
                                          i64 drawn_count, std::int32_t* ids, T* y, int width, float eps) {
  let_next_begin();
  wait_for_previous();
  const i64 token = blockIdx.x;
  i64 id = inputs[token];
  if (id < 0) id = -1 - id < drawn_count ? drawn[-1 - id] : -1;
  if (threadIdx.x == 0) ids[token] = static_cast<std::int32_t>(id);
  const bool known = id >= 0 && id < rows;
  float values[kAccesses][N];
  float sum = 0.0F;
#pragma unroll
  for (int a = 0; a < kAccesses; ++a) {
    const int i = (a * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
    if (i >= width) continue;
    if (known) {
      load<N>(table + id * width + i, values[a]);
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) values[a][j] = __int_as_float(0x7fc00000);
    }
#pragma unroll
    for (int j = 0; j < N; ++j) sum += values[a][j] * values[a][j];
  }
  const float scale = rsqrtf(row_sum(sum) / static_cast<float>(width) + eps);
#pragma unroll
  for (int a = 0; a < kAccesses; ++a) {
    const int i = (a * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * N;
    if (i >= width) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) values[a][j] *= scale;
    store<N>(y + token * width + i, values[a]);
  }
}

}  // namespace

void rms_norm(Element type, const void* x, Element residual_type, void* residual, void* y, float* rstd, i64 rows, i64 n,
              float eps, Stream stream) {
  if (rows == 0) return;
  visit(type, [&]<class T>(T) {
    const bool wide = n % kPackSize<T> == 0 && aligned(x) && aligned(y) && (residual == nullptr || aligned(residual));
    const auto run = [&]<int N>(std::integral_constant<int, N>) {
      const RowLaunch shape = row_launch(rows, n, N);
      const auto* from = static_cast<const T*>(x);
      auto* to = static_cast<T*>(y);
      if (residual == nullptr) {
        launch(&rms_norm_kernel<T, T, N, false>, shape.grid, shape.block, 0, stream, from, static_cast<T*>(nullptr), to, rstd,
               rows, static_cast<int>(n), eps);
        return;
      }
      visit_stream<T>(residual_type, [&]<class S>(S) {
        launch(&rms_norm_kernel<S, T, N, true>, shape.grid, shape.block, 0, stream, from, static_cast<S*>(residual), to, rstd,
               rows, static_cast<int>(n), eps);
      });
    };
    if (wide) {
      run(std::integral_constant<int, kPackSize<T>>());
    } else {
      run(std::integral_constant<int, 1>());
    }
  });
  check_launch("rms_norm");
}

void rms_norm_backward(Element type, const void* dy, const void* y, const float* rstd, void* dx, bool accumulate, i64 rows,
                       i64 n, Stream stream) {
  if (rows == 0) return;
  visit(type, [&]<class T>(T) {
    const bool wide = n % kPackSize<T> == 0 && aligned(dy) && aligned(y) && aligned(dx);
    const auto run = [&]<int N>(std::integral_constant<int, N>) {
      const RowLaunch shape = row_launch(rows, n, N);
      const auto* gradient = static_cast<const T*>(dy);
      const auto* output = static_cast<const T*>(y);
      auto* to = static_cast<T*>(dx);
      if (accumulate) {
        rms_norm_backward_kernel<T, N, true>
            <<<shape.grid, shape.block, 0, stream>>>(gradient, output, rstd, to, rows, static_cast<int>(n));
      } else {
        rms_norm_backward_kernel<T, N, false>
            <<<shape.grid, shape.block, 0, stream>>>(gradient, output, rstd, to, rows, static_cast<int>(n));
      }
    };
    if (wide) {
      run(std::integral_constant<int, kPackSize<T>>());
    } else {
      run(std::integral_constant<int, 1>());
    }
  });
  check_launch("rms_norm_backward");
}

void rope_qk_norm(Element type, const void* qkv, const float* cos, const float* sin, const i64* start, void* q, void* k,
                  float* rstd, const RopeShape& shape, float eps, Stream stream) {
  const i64 tokens = shape.batch * shape.time;
  if (tokens == 0) return;
  visit(type, [&]<class T>(T) {
    const bool wide = aligned(qkv) && aligned(q) && aligned(k) && aligned(cos) && aligned(sin);
    visit_lanes<T>(shape.d, wide, [&]<int N, int L>(std::integral_constant<int, N>, std::integral_constant<int, L>) {
      rope_norm_kernel<T, N, L>
          <<<blocks_for(tokens * L, kThreads), kThreads, 0, stream>>>(static_cast<const T*>(qkv), cos, sin, start,
                                                                      static_cast<T*>(q), static_cast<T*>(k), rstd, shape, eps);
    });
  });
  check_launch("rope_qk_norm");
}

void rope_qk_norm_backward(Element type, const void* dq, const void* dk, const void* dv, const void* q, const void* k,
                           const float* rstd, const float* cos, const float* sin, void* dqkv, const RopeShape& shape,
                           Stream stream) {
  const i64 tokens = shape.batch * shape.time;
  if (tokens == 0) return;
  visit(type, [&]<class T>(T) {
    const bool wide = aligned(dq) && aligned(dk) && aligned(dv) && aligned(q) && aligned(k) && aligned(cos) && aligned(sin) &&
                      aligned(dqkv);
    visit_lanes<T>(shape.d, wide, [&]<int N, int L>(std::integral_constant<int, N>, std::integral_constant<int, L>) {
      rope_norm_backward_kernel<T, N, L><<<blocks_for(tokens * L, kThreads), kThreads, 0, stream>>>(
          static_cast<const T*>(dq), static_cast<const T*>(dk), static_cast<const T*>(dv), static_cast<const T*>(q),
          static_cast<const T*>(k), rstd, cos, sin, static_cast<T*>(dqkv), shape);
    });
  });
  check_launch("rope_qk_norm_backward");
}

void rope_qk_norm_store(Element type, const void* qkv, const float* cos, const float* sin, const std::int32_t* positions,
                        const std::int32_t* slots, void* q, void* keys, void* values, const PagedShape& shape, float eps,
                        Stream stream) {
  const i64 rows = static_cast<i64>(shape.tokens) * (shape.n_head + 2 * shape.n_kv_head);
  if (rows == 0) return;
  visit(type, [&]<class T>(T) {
    const bool wide = aligned(qkv) && aligned(q) && aligned(keys) && aligned(values) && aligned(cos) && aligned(sin);
    visit_lanes<T>(shape.d, wide, [&]<int N, int L>(std::integral_constant<int, N>, std::integral_constant<int, L>) {
      visit_cache<T>(shape.fp8, [&]<class C>(C) {
        launch(&rope_norm_store_kernel<T, C, N, L>, blocks_for(rows * L, kThreads), kThreads, 0, stream,
               static_cast<const T*>(qkv), cos, sin, positions, slots, static_cast<T*>(q), static_cast<C*>(keys),
               static_cast<C*>(values), shape, eps);
      });
    });
  });
  check_launch("rope_qk_norm_store");
}

void relu_squared(Element type, const void* x, void* y, i64 n, Stream stream) {
  launch_relu_squared<false>(type, nullptr, x, y, n, stream);
}

void relu_squared_normalised(Element type, const void* x, void* y, i64 rows, i64 n, i64 m, float eps, Stream stream) {
  if (rows == 0 || m == 0) return;
  visit(type, [&]<class T>(T) {
    const auto run = [&]<int N>(std::integral_constant<int, N>) {
      const dim3 grid(blocks_for(m, kThreads * N), static_cast<unsigned>(rows));
      launch(&relu_squared_normalised_kernel<T, N>, grid, kThreads, 0, stream, static_cast<const T*>(x), static_cast<T*>(y),
             static_cast<int>(n), static_cast<int>(m), eps);
    };
    constexpr int N = kPackSize<T>;
    if (n % N == 0 && m % N == 0 && aligned(x) && aligned(y)) {
      run(std::integral_constant<int, N>());
    } else {
      run(std::integral_constant<int, 1>());
    }
  });
  check_launch("relu_squared_normalised");
}

void relu_squared_backward(Element type, const void* dy, const void* y, void* dx, i64 n, Stream stream) {
  launch_relu_squared<true>(type, dy, y, dx, n, stream);
}

void embedding(Element type, const void* table, i64 rows, const std::int32_t* ids, i64 n, void* y, i64 width, Stream stream) {
  if (n == 0) return;
  visit(type, [&]<class T>(T) {
    embedding_kernel<T>
        <<<static_cast<unsigned>(n), kThreads, 0, stream>>>(static_cast<const T*>(table), rows, ids, static_cast<T*>(y), width);
  });
  check_launch("embedding");
}

void embedding_rms_norm(Element type, const void* table, i64 rows, const std::int32_t* inputs, i64 n, const std::int32_t* drawn,
                        i64 drawn_count, std::int32_t* ids, void* y, i64 width, float eps, Stream stream) {
  if (n == 0) return;
  visit(type, [&]<class T>(T) {
    const auto run = [&]<int N>(std::integral_constant<int, N>) {
      const unsigned threads = row_launch(1, width, N).block.x;
      launch(&embedding_rms_norm_kernel<T, N>, static_cast<unsigned>(n), threads, 0, stream, static_cast<const T*>(table), rows,
             inputs, drawn, drawn_count, ids, static_cast<T*>(y), static_cast<int>(width), eps);
    };
    if (width % kPackSize<T> == 0 && aligned(table) && aligned(y)) {
      run(std::integral_constant<int, kPackSize<T>>());
    } else {
      run(std::integral_constant<int, 1>());
    }
  });
  check_launch("embedding_rms_norm");
}

}  // namespace nanochat::ops::cuda
