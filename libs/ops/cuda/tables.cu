// Kernels of value embeddings, and the gradients of tables by token. A table's row gets the gradients of all tokens of its id:
// tokens are sorted by id, and blocks of threads take equal shares of them, so that an id that is in every second place costs
// no more than others. Every sum is taken in one order, whatever runs first.

#include "device_code.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kShare = 32;  // sorted tokens of one block
constexpr int kAhead = 4;   // of them, whose gradients are loaded at once
constexpr float kGateScale = 3.0F;
constexpr int kThreads = 256;

// What a block sums up: `groups` groups of d columns side by side (heads, or just columns), each by L lanes with N neighbouring
// columns in each of A accesses.
struct Columns {
  i64 width, d, groups;
};

// A run of tokens of one id that lies in one share is added to its row. Of a run that goes on in the next share, the sum so far
// goes to the second row of this share's partials; of a run that came from the share before, to the first row.
// kGated: gradients are multiplied with the gates, and the gradients of the gates come from products with the table's rows.
template <class T, int N, int A, int L, bool kGated>
__global__ void table_gradient_kernel(const T* __restrict__ dy, i64 dy_stride, SortedTokens tokens, float* __restrict__ dtable,
                                      i64 rows, Columns columns, float* __restrict__ partials, const void* __restrict__ table,
                                      bool table_is_float, const float* __restrict__ gates, float* __restrict__ slopes) {
  __shared__ std::int32_t ids[kShare + 2];  // of the token before, of this share, and of the token behind
  __shared__ i64 positions[kShare];
  const i64 first = static_cast<i64>(blockIdx.x) * kShare;
  const int count = static_cast<int>(min(static_cast<i64>(kShare), tokens.count - first));
  for (int i = static_cast<int>(threadIdx.x); i < kShare + 2; i += static_cast<int>(blockDim.x)) {
    const i64 token = first + i - 1;
    ids[i] = token >= 0 && token < tokens.count ? tokens.ids[token] : -1;
    if (i < count) positions[i] = tokens.positions[first + i];
  }
  __syncthreads();
  const i64 group = static_cast<i64>(blockIdx.y) * (blockDim.x / L) + threadIdx.x / L;
  const bool in_group = group < columns.groups;  // a warp shuffles as a whole
  const int lane = static_cast<int>(threadIdx.x % L);
  i64 column[A];
  bool inside[A];
#pragma unroll
  for (int a = 0; a < A; ++a) {
    const i64 of_group = (a * L + lane) * N;
    column[a] = group * columns.d + of_group;
    inside[a] = in_group && of_group < columns.d && column[a] < columns.width;
  }
  float sums[A][N] = {}, row[kGated ? A : 1][N] = {};
  for (int begin = 0; begin < count; begin += kAhead) {
    Pack<T, N> packs[kAhead][A];
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      if (begin + ahead >= count) continue;
      const T* from = dy + positions[begin + ahead] * dy_stride;
#pragma unroll
      for (int a = 0; a < A; ++a) {
        if (inside[a]) packs[ahead][a] = *reinterpret_cast<const Pack<T, N>*>(from + column[a]);
      }
    }
#pragma unroll
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const int i = begin + ahead;
      if (i >= count) continue;
      const std::int32_t id = ids[i + 1];
      const bool known = id >= 0 && id < rows;  // the forward pass has made NaNs of others
      float factor = 1.0F;
      if constexpr (kGated) {
        if ((i == 0 || ids[i] != id) && known) {
#pragma unroll
          for (int a = 0; a < A; ++a) {
            if (!inside[a]) continue;
            const i64 at = id * columns.width + column[a];
            if (table_is_float) {
              load<N>(static_cast<const float*>(table) + at, row[a]);
            } else {
              load<N>(static_cast<const T*>(table) + at, row[a]);
            }
          }
        }
        float product = 0.0F;
#pragma unroll
        for (int a = 0; a < A; ++a) {
          if (!inside[a]) continue;
#pragma unroll
          for (int j = 0; j < N; ++j) product += to_float(packs[ahead][a].v[j]) * row[a][j];
        }
        product = group_sum<L>(product);
        if (in_group) {
          const i64 gate = positions[i] * columns.groups + group;
          factor = gates[gate];
          if (lane == 0) slopes[gate] = product * factor * (1.0F - factor / kGateScale);
        }
      }
      if (dtable == nullptr) continue;
#pragma unroll
      for (int a = 0; a < A; ++a) {
        if (!inside[a]) continue;
#pragma unroll
        for (int j = 0; j < N; ++j) sums[a][j] += factor * to_float(packs[ahead][a].v[j]);
      }
      if (i + 1 < count && ids[i + 2] == id) continue;
      // The run ends here, or goes on in the next share.
      const bool goes_on = i + 1 == count && ids[i + 2] == id;
      const bool came = ids[0] == id;  // sorted: then all tokens up to here are of this id
      float* to = came      ? partials + static_cast<i64>(blockIdx.x) * 2 * columns.width
                  : goes_on ? partials + (static_cast<i64>(blockIdx.x) * 2 + 1) * columns.width
                            : dtable + id * columns.width;
#pragma unroll
      for (int a = 0; a < A; ++a) {
        if (inside[a] && known) {
          if (!came && !goes_on) {
            float before[N];
            load<N>(to + column[a], before);
#pragma unroll
            for (int j = 0; j < N; ++j) sums[a][j] += before[j];
          }
          store<N>(to + column[a], sums[a]);
        }
#pragma unroll
        for (int j = 0; j < N; ++j) sums[a][j] = 0.0F;
      }
    }
  }
}

// Adds up the runs that go over several shares, by a block for the share in which each begins.
__global__ void join_runs_kernel(SortedTokens tokens, const float* __restrict__ partials, float* __restrict__ dtable, i64 rows,
                                 i64 width) {
  const i64 share = blockIdx.x, next = (share + 1) * kShare;
  if (next >= tokens.count) return;
  const std::int32_t id = tokens.ids[next - 1];
  if (id < 0 || id >= rows || tokens.ids[next] != id) return;
  const i64 first = share * kShare;
  if (first > 0 && tokens.ids[first - 1] == id) return;  // it began earlier
  i64 end = share + 1;  // the share behind the last that the run reaches
  while (end * kShare < tokens.count && tokens.ids[end * kShare] == id) ++end;
  for (i64 i = threadIdx.x; i < width; i += blockDim.x) {
    float sum = partials[(share * 2 + 1) * width + i];
#pragma unroll 4
    for (i64 other = share + 1; other < end; ++other) sum += partials[other * 2 * width + i];
    dtable[id * width + i] += sum;
  }
}

template <class T, int N, int A, int L>
__global__ void add_value_embedding_kernel(ValueEmbedding arguments, T* v, i64 v_stride, const std::int32_t* ids, float* g) {
  let_next_begin();
  wait_for_previous();
  const i64 index = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / L, all = arguments.tokens * arguments.heads;
  const bool live = index < all;  // a warp shuffles as a whole
  const i64 token = live ? index / arguments.heads : 0, head = live ? index % arguments.heads : 0;
  const int lane = static_cast<int>(threadIdx.x % L);
  const std::int32_t id = ids[token];
  const bool known = id >= 0 && id < arguments.table_rows;
  T* to = v + token * v_stride + head * arguments.d;
  const i64 from = id * arguments.heads * arguments.d + head * arguments.d;
  float values[A][N] = {}, rows[A][N];
#pragma unroll
  for (int a = 0; a < A; ++a) {
    const i64 i = (a * L + lane) * N;
    if (i >= arguments.d) continue;
    load<N>(to + i, values[a]);
    if (!known) {
#pragma unroll
      for (int j = 0; j < N; ++j) rows[a][j] = __int_as_float(0x7fc00000);
    } else if (arguments.table_type == Element::kFloat) {
      load<N>(static_cast<const float*>(arguments.table) + from + i, rows[a]);
    } else {
      load<N>(static_cast<const T*>(arguments.table) + from + i, rows[a]);
    }
  }
  const T* h = static_cast<const T*>(arguments.h) + token * arguments.width;
  const T* gate = static_cast<const T*>(arguments.gate) + head * arguments.channels;
  float logit = 0.0F;
  for (int i = lane; i < arguments.channels; i += L) logit += to_float(h[i]) * to_float(gate[i]);
  const float opened = kGateScale / (1.0F + expf(-group_sum<L>(logit)));
  if (!live) return;
  if (g != nullptr && lane == 0) g[index] = opened;
#pragma unroll
  for (int a = 0; a < A; ++a) {
    const i64 i = (a * L + lane) * N;
    if (i >= arguments.d) continue;
#pragma unroll
    for (int j = 0; j < N; ++j) values[a][j] += opened * rows[a][j];
    store<N>(to + i, values[a]);
  }
}

// A warp takes a token at a time, a lane the channel of its number. Each block leaves its sums in partials (blocks, heads,
// channels).
constexpr int kGateBlocks = 256, kGateWarps = 8;

template <class T>
__global__ void gate_gradient_kernel(const float* slopes, const T* x, const T* gate, T* dx, float* partials, i64 tokens,
                                     int heads, int channels, i64 width) {
  let_next_begin();
  wait_for_previous();
  extern __shared__ float sums[];  // (kGateWarps, heads, 32)
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  float* mine = sums + warp * heads * 32 + lane;
  for (int head = 0; head < heads; ++head) mine[head * 32] = 0.0F;
  for (i64 token = static_cast<i64>(blockIdx.x) * kGateWarps + warp; token < tokens;
       token += static_cast<i64>(gridDim.x) * kGateWarps) {
    if (lane >= channels) continue;
    const float value = to_float(x[token * width + lane]);
    float gradient = dx != nullptr ? to_float(dx[token * width + lane]) : 0.0F;
    for (int head = 0; head < heads; ++head) {
      const float slope = slopes[token * heads + head];
      mine[head * 32] += slope * value;
      if (dx != nullptr) gradient += slope * to_float(gate[head * channels + lane]);
    }
    if (dx != nullptr) from_float(gradient, dx[token * width + lane]);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < heads * 32; i += static_cast<int>(blockDim.x)) {
    if (i % 32 >= channels) continue;
    float sum = 0.0F;
    for (int other = 0; other < kGateWarps; ++other) sum += sums[other * heads * 32 + i];
    partials[(static_cast<i64>(blockIdx.x) * heads + i / 32) * channels + i % 32] = sum;
  }
}

// A warp for each element of the gate.
__global__ void add_gate_partials_kernel(const float* __restrict__ partials, int blocks, int elements, float* d_gate) {
  const int element = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  if (element >= elements) return;
  float sum = 0.0F;
  for (int i = static_cast<int>(threadIdx.x % 32); i < blocks; i += 32) sum += partials[i * elements + element];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) d_gate[element] += sum;
}

// Calls body with the columns of an access, the accesses and the lanes of a head of d columns.
template <class Body>
void visit_head(i64 d, bool wide, const Body& body) {
  const auto with = [&]<int N, int A, int L>(std::integral_constant<int, N> n, std::integral_constant<int, A> a,
                                             std::integral_constant<int, L> l) { body(n, a, l); };
  using Eight = std::integral_constant<int, 8>;
  using One = std::integral_constant<int, 1>;
  using Warp = std::integral_constant<int, 32>;
  if (d > 256) throw std::runtime_error("the CUDA kernels of value embeddings do not take heads of " + std::to_string(d));
  if (!wide || d % 8 != 0) return with(One(), Eight(), Warp());
  if (d <= 64) return with(Eight(), One(), std::integral_constant<int, 8>());
  if (d <= 128) return with(Eight(), One(), std::integral_constant<int, 16>());
  with(Eight(), One(), Warp());
}

i64 shares_of(i64 tokens) { return (tokens + kShare - 1) / kShare; }

struct GroupLaunch {
  dim3 grid;
  unsigned threads;
};

// Blocks of about kThreads threads, whole warps.
GroupLaunch group_launch(i64 shares, i64 groups, int lanes) {
  const i64 most = kThreads / lanes, blocks = (groups + most - 1) / most;
  const i64 at_once = (groups + blocks - 1) / blocks;
  const auto threads = static_cast<unsigned>((at_once * lanes + 31) / 32 * 32);
  return {dim3(static_cast<unsigned>(shares), static_cast<unsigned>((groups * lanes + threads - 1) / threads)), threads};
}

void join_runs(const SortedTokens& tokens, const float* partials, float* dtable, i64 rows, i64 width, Stream stream) {
  join_runs_kernel<<<static_cast<unsigned>(shares_of(tokens.count)), kThreads, 0, stream>>>(tokens, partials, dtable, rows,
                                                                                            width);
}

}  // namespace

i64 table_gradient_partials(i64 tokens, i64 width) { return 2 * shares_of(tokens) * width; }

void embedding_backward(Element type, const void* dy, const SortedTokens& tokens, float* dtable, i64 rows, i64 width,
                        float* partials, Stream stream) {
  if (tokens.count == 0) return;
  visit(type, [&]<class T>(T) {
    constexpr int kLanes = 32, kColumns = 8 * kLanes;
    const Columns columns = {width, kColumns, (width + kColumns - 1) / kColumns};
    const GroupLaunch shape = group_launch(shares_of(tokens.count), columns.groups, kLanes);
    const bool wide = width % 8 == 0 && aligned(dy) && aligned(dtable) && aligned(partials);
    const auto kernel = wide ? &table_gradient_kernel<T, 8, 1, kLanes, false> : &table_gradient_kernel<T, 1, 8, kLanes, false>;
    kernel<<<shape.grid, shape.threads, 0, stream>>>(static_cast<const T*>(dy), width, tokens, dtable, rows, columns, partials,
                                                     nullptr, false, nullptr, nullptr);
  });
  join_runs(tokens, partials, dtable, rows, width, stream);
  check_launch("embedding_backward");
}

void add_value_embedding(Element type, const ValueEmbedding& arguments, void* v, i64 v_stride, const std::int32_t* ids,
                         float* g, Stream stream) {
  if (arguments.tokens == 0) return;
  visit(type, [&]<class T>(T) {
    const bool wide = aligned(v) && aligned(arguments.table) && v_stride % 8 == 0;
    visit_head(arguments.d, wide,
               [&]<int N, int A, int L>(std::integral_constant<int, N>, std::integral_constant<int, A>,
                                        std::integral_constant<int, L>) {
                 launch(&add_value_embedding_kernel<T, N, A, L>, blocks_for(arguments.tokens * arguments.heads * L, kThreads),
                        kThreads, 0, stream, arguments, static_cast<T*>(v), v_stride, ids, g);
               });
  });
  check_launch("add_value_embedding");
}

void value_embedding_slopes(Element type, const ValueEmbedding& arguments, const void* dv, i64 dv_stride,
                            const SortedTokens& tokens, const float* g, float* slopes, float* d_table, float* partials,
                            Stream stream) {
  if (tokens.count == 0) return;
  const i64 width = arguments.heads * arguments.d;
  visit(type, [&]<class T>(T) {
    const bool wide = dv_stride % 8 == 0 && aligned(dv) && aligned(arguments.table) &&
                      (d_table == nullptr || (aligned(d_table) && aligned(partials)));
    visit_head(arguments.d, wide,
               [&]<int N, int A, int L>(std::integral_constant<int, N>, std::integral_constant<int, A>,
                                        std::integral_constant<int, L>) {
                 const Columns columns = {width, arguments.d, arguments.heads};
                 const GroupLaunch shape = group_launch(shares_of(tokens.count), columns.groups, L);
                 table_gradient_kernel<T, N, A, L, true>
                     <<<shape.grid, shape.threads, 0, stream>>>(static_cast<const T*>(dv), dv_stride, tokens, d_table,
                                                                arguments.table_rows, columns, partials, arguments.table,
                                                                arguments.table_type == Element::kFloat, g, slopes);
               });
  });
  if (d_table != nullptr) join_runs(tokens, partials, d_table, arguments.table_rows, width, stream);
  check_launch("value_embedding_slopes");
}

i64 gate_gradient_partials(i64 heads, i64 channels) { return kGateBlocks * heads * channels; }

void gate_gradient(Element type, const float* slopes, const void* x, const void* gate, void* dx, float* d_gate, float* partials,
                   i64 tokens, i64 heads, i64 channels, i64 width, Stream stream) {
  constexpr i64 kMostHeads = 192;  // so many fit the shared memory of a block
  if (channels > 32 || heads > kMostHeads) {
    throw std::runtime_error("the CUDA kernel for the gradients of gates takes 32 channels and " + std::to_string(kMostHeads) +
                             " heads, not " + std::to_string(channels) + " and " + std::to_string(heads));
  }
  visit(type, [&]<class T>(T) {
    launch(&gate_gradient_kernel<T>, kGateBlocks, kGateWarps * 32,
           static_cast<std::size_t>(heads * 32 * kGateWarps) * sizeof(float), stream, slopes, static_cast<const T*>(x),
           static_cast<const T*>(gate), static_cast<T*>(dx), partials, tokens, static_cast<int>(heads),
           static_cast<int>(channels), width);
  });
  const i64 elements = heads * channels;
  add_gate_partials_kernel<<<blocks_for(elements * 32, kThreads), kThreads, 0, stream>>>(partials, kGateBlocks,
                                                                                         static_cast<int>(elements), d_gate);
  check_launch("gate_gradient");
}

}  // namespace nanochat::ops::cuda
