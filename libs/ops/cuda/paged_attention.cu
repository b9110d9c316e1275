// Attention over a cache in blocks, and the writes to that cache.
//
// A block of threads answers one tile of rows for one split of the keys, tile of keys by tile of keys, with the running
// maximum and sum of Dao et al. (2022). Where the keys of a tile are in several splits, each block leaves its part in scratch
// memory, and the one that ends last adds the parts up in the order of the splits (flash-decoding: Dao et al. 2023). Splits
// begin at multiples of one size, so that the order of every sum depends on the sequence alone.
//
// In bfloat16, beside which keys and values may be E4M3, the products are those of tensor cores. A tile of 16 rows, which is a
// decode or a few tokens, shares the keys out among four warps; a tall tile, which is a piece of a prompt, its rows.

#include "device_code.cuh"
#include "paged_attention.cuh"
#include "tensor_cores.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = kAttentionThreads, kWarps = kAttentionWarps;

// What a block of threads works on.
struct Work {
  PagedSequence sequence;
  int first, rows;  // rows of the sequence
  int begin, end;  // keys
  int first_split, splits;  // those that see keys of the tile
  bool any;
};

__device__ inline Work find_work(const PagedAttentionArguments& p, int tile_rows) {
  Work work;
  PagedTile tile = {static_cast<int>(blockIdx.z), 0};
  if (p.tiles != nullptr) tile = p.tiles[blockIdx.z];
  work.sequence = p.sequences[tile.sequence];
  const int group = p.n_head / p.n_kv_head, split = static_cast<int>(blockIdx.x);
  work.first = tile.first;
  work.rows = min(tile_rows, work.sequence.tokens * group - tile.first);
  work.any = false;
  if (work.rows <= 0) return work;
  const int oldest = max(0, work.sequence.start + work.first / group - p.window);  // key that any row sees
  const int seen = work.sequence.start + (work.first + work.rows - 1) / group + 1;
  work.first_split = oldest / p.split;
  work.splits = (seen - 1) / p.split - work.first_split + 1;
  work.begin = max(split * p.split, oldest / kTileKeys * kTileKeys);
  work.end = min(split * p.split + p.split, seen);
  work.any = work.begin < work.end;
  return work;
}

// Where row `row` of a tile lies in q and out, in elements.
__device__ inline i64 row_offset(const PagedAttentionArguments& p, const Work& work, int row) {
  const int group = p.n_head / p.n_kv_head, packed = work.first + row;
  const i64 token = work.sequence.row + packed / group;
  return (token * p.n_head + static_cast<i64>(blockIdx.y) * group + packed % group) * p.d;
}

// The last key that a row sees.
__device__ inline int last_key(const PagedAttentionArguments& p, const Work& work, int row) {
  return work.sequence.start + (work.first + row) / (p.n_head / p.n_kv_head);
}

// Scratch of one split of a tile: the sums of weighted values of every row (partial_rows, d), then the rows' marks, which
// are the maximum and the sum of weights, padded to 16 bytes.
__host__ __device__ inline i64 part_floats(const PagedAttentionArguments& p) {
  return static_cast<i64>(p.partial_rows) * p.d + (p.partial_rows + 1) / 2 * 4;
}
struct Part {
  float* sums;
  float2* marks;
};
__device__ inline Part part_of(const PagedAttentionArguments& p, int split) {
  const i64 slot = (static_cast<i64>(blockIdx.z) * p.n_kv_head + blockIdx.y) * p.splits + split;
  float* const sums = p.partial + slot * part_floats(p);
  return {sums, reinterpret_cast<float2*>(sums + static_cast<i64>(p.partial_rows) * p.d)};
}

// Whether this block is the last one of its tile and head, all of whose parts are then in memory.
__device__ inline bool last_of_tile(const PagedAttentionArguments& p, const Work& work) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    std::int32_t* counter = p.counters + static_cast<i64>(blockIdx.z) * p.n_kv_head + blockIdx.y;
    last = atomicAdd(counter, 1) == work.splits - 1;
    if (last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

template <class T>
__device__ inline void add_parts(const PagedAttentionArguments& p, const Work& work) {
  const int lanes = p.d / 4;
  auto* out = static_cast<T*>(p.out);
  for (int i = static_cast<int>(threadIdx.x); i < work.rows * lanes; i += kThreads) {
    const int row = i / lanes, d = i % lanes * 4;
    float maximum = -kInfinity;
    for (int s = 0; s < work.splits; ++s) {
      maximum = fmaxf(maximum, __ldcg(part_of(p, work.first_split + s).marks + row).x);
    }
    WeightedSum sum;
    for (int s = 0; s < work.splits; ++s) {
      const Part part = part_of(p, work.first_split + s);
      sum.add(__ldcg(part.marks + row), __ldcg(reinterpret_cast<const float4*>(part.sums + static_cast<i64>(row) * p.d + d)),
              maximum);
    }
    sum.divide();
    store<4>(out + row_offset(p, work, row) + d, sum.values);
  }
}

// N neighbouring results of a row, to the output or to scratch memory.
template <int N, class T>
__device__ inline void write_row(const PagedAttentionArguments& p, const Work& work, int row, int d, float maximum, float sum,
                                 float (&values)[N]) {
  if (work.splits == 1) {
#pragma unroll
    for (int j = 0; j < N; ++j) values[j] /= sum;
    store<N>(static_cast<T*>(p.out) + row_offset(p, work, row) + d, values);
    return;
  }
  const Part part = part_of(p, static_cast<int>(blockIdx.x));
  store<N>(part.sums + static_cast<i64>(row) * p.d + d, values);
  if (d == 0) part.marks[row] = make_float2(maximum, sum);
}

// ---------------------------------------------------------------------------------------------------- bfloat16

// T: of keys and values.
template <class T, int D, int kRowWarps, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) paged_attention_bf16(const __grid_constant__ PagedAttentionArguments p) {
  constexpr int kKeyWarps = kWarps / kRowWarps, kTile = kTileKeys * D;
  constexpr int kKeys = kTileKeys / kKeyWarps;  // of a tile that one warp takes
  extern __shared__ __align__(128) unsigned char shared[];
  auto* const stages = reinterpret_cast<T*>(shared);  // kStages times keys and values
  let_next_begin();
  wait_for_previous();
  const Work work = find_work(p, 16 * kRowWarps);
  if (!work.any) return;

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int quad_row = lane / 4, quad = lane % 4;
  const int row_warp = warp / kKeyWarps, key_warp = warp % kKeyWarps;
  const int row0 = 16 * row_warp + quad_row, row1 = row0 + 8;  // of the tile
  const float scale = p.scale * kLog2E;  // powers of two instead of e

  TileLoader<T, D, kTileKeys, PagedAttentionArguments> loader(p, static_cast<int>(blockIdx.y));
  loader.start(work.sequence.table, work.begin, work.end);
  const auto begin_copy = [&](int stage) {
    T* const keys = stages + static_cast<std::ptrdiff_t>(stage) * 2 * kTile;
    loader.copy([&](int row, int chunk) { return place<D>(keys, row, chunk); },
                [&](int row, int chunk) { return place<D>(keys + kTile, row, chunk); });
  };
  const int tiles = (work.end - work.begin + kTileKeys - 1) / kTileKeys;
  loader.look_up();
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < tiles) begin_copy(stage);
    commit_copies();
    loader.look_up();
  }

  u32 q[D / 16][4];
  {
    const auto* from = static_cast<const bf16*>(p.q);
    const i64 offset0 = row_offset(p, work, min(row0, work.rows - 1)), offset1 = row_offset(p, work, min(row1, work.rows - 1));
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      const int column = 16 * i + kPair<T> * quad;
      q[i][0] = *reinterpret_cast<const u32*>(from + offset0 + column);
      q[i][1] = *reinterpret_cast<const u32*>(from + offset1 + column);
      q[i][2] = *reinterpret_cast<const u32*>(from + offset0 + column + kNextPair<T>);
      q[i][3] = *reinterpret_cast<const u32*>(from + offset1 + column + kNextPair<T>);
      if constexpr (kIsE4M3<T>) {
#pragma unroll
        for (u32& pair : q[i]) pair = half_of_bf16(pair);
      }
    }
  }
  const int last[2] = {last_key(p, work, min(row0, work.rows - 1)), last_key(p, work, min(row1, work.rows - 1))};
  // Tiles between these are seen by every row.
  const int all_see_from = max(0, last_key(p, work, work.rows - 1) - p.window), all_see_to = last_key(p, work, 0);

  RowSums<T, D> sums;

  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + kStages - 1 < tiles) begin_copy((tile + kStages - 1) % kStages);
    commit_copies();
    loader.look_up();
    wait_for_copies<kStages - 1>();
    __syncthreads();
    T* const keys = stages + static_cast<std::ptrdiff_t>(tile % kStages) * 2 * kTile;
    T* const values = keys + kTile;

    const int first_key = work.begin + tile * kTileKeys + key_warp * kKeys;
    const bool all_see = first_key >= all_see_from && first_key + kKeys - 1 <= all_see_to;
    sums.template add<kKeys>(q, keys, values, key_warp * kKeys, scale, all_see, [&](int i, int r) {
      // Positions are not negative, so neither difference overflows.
      return first_key + i > last[r] || last[r] - (first_key + i) > p.window;
    });
    __syncthreads();  // the next copies overwrite this tile
  }
  sums.complete();

  if constexpr (kKeyWarps == 1) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = r == 0 ? row0 : row1;
      if (row >= work.rows) continue;
      sums.visit(r, [&]<int N>(int column, float(&values)[N]) {
        write_row<N, bf16>(p, work, row, column, sums.maximum[r], sums.sum[r], values);
      });
    }
  } else {
    wait_for_copies<0>();
    __syncthreads();
    const WarpSums<D> all(shared, work.rows);
    sums.store(all);
    __syncthreads();
    all.add_up([&](int row, int column, float maximum, WeightedSum& sum) {
      write_row<4, bf16>(p, work, row, column, maximum, sum.weights, sum.values);
    });
  }
  if (work.splits > 1 && last_of_tile(p, work)) add_parts<bf16>(p, work);
}

// ------------------------------------------------------------------------------------------------------ float32

// A warp takes four rows. For the scores a lane has a key, for the sums of values every 32nd dimension.
template <int D>
struct FloatTile {
  static constexpr int kKeys = 32, kPitch = D + 4;  // keys are padded: lanes read one dimension of 32 of them at a time
  float keys[kKeys * kPitch];
  float values[kKeys * D];
};
constexpr int kRowsPerWarp = kTileRows / kWarps;

template <int D>
__global__ void __launch_bounds__(kThreads) paged_attention_float(const __grid_constant__ PagedAttentionArguments p) {
  constexpr int kKeys = FloatTile<D>::kKeys, kPitch = FloatTile<D>::kPitch;
  extern __shared__ __align__(128) unsigned char shared[];
  auto* const stages = reinterpret_cast<FloatTile<D>*>(shared);
  auto* const queries = reinterpret_cast<float*>(stages + kStages);  // (kTileRows, D)
  let_next_begin();
  wait_for_previous();
  const Work work = find_work(p, kTileRows);
  if (!work.any) return;

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const float scale = p.scale * kLog2E;
  TileLoader<float, D, kKeys, PagedAttentionArguments> loader(p, static_cast<int>(blockIdx.y));
  loader.start(work.sequence.table, work.begin, work.end);
  const auto begin_copy = [&](int stage) {
    FloatTile<D>& tile = stages[stage];
    loader.copy([&](int row, int chunk) { return tile.keys + row * kPitch + 4 * chunk; },
                [&](int row, int chunk) { return tile.values + row * D + 4 * chunk; });
  };
  const int tiles = (work.end - work.begin + kKeys - 1) / kKeys;
  loader.look_up();
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < tiles) begin_copy(stage);
    commit_copies();
    loader.look_up();
  }
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows * D / 4; i += kThreads) {
    const int row = min(i / (D / 4), work.rows - 1), column = i % (D / 4) * 4;
    *reinterpret_cast<float4*>(queries + 4 * i) = *reinterpret_cast<const float4*>(static_cast<const float*>(p.q) +
                                                                                   row_offset(p, work, row) + column);
  }
  int last[kRowsPerWarp];
  float out[kRowsPerWarp][D / 32] = {}, maximum[kRowsPerWarp], sum[kRowsPerWarp] = {};
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
    last[r] = last_key(p, work, min(warp * kRowsPerWarp + r, work.rows - 1));
    maximum[r] = -kInfinity;
  }
  const bool busy = warp * kRowsPerWarp < work.rows;

  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + kStages - 1 < tiles) begin_copy((tile + kStages - 1) % kStages);
    commit_copies();
    loader.look_up();
    wait_for_copies<kStages - 1>();
    __syncthreads();
    if (busy) {
      const FloatTile<D>& t = stages[tile % kStages];
      const float* const q = queries + warp * kRowsPerWarp * D;
      float scores[kRowsPerWarp] = {};
#pragma unroll 4
      for (int d = 0; d < D; d += 4) {
        const float4 k = *reinterpret_cast<const float4*>(t.keys + lane * kPitch + d);
#pragma unroll
        for (int r = 0; r < kRowsPerWarp; ++r) {
          const float4 x = *reinterpret_cast<const float4*>(q + r * D + d);
          scores[r] += x.x * k.x + x.y * k.y + x.z * k.z + x.w * k.w;
        }
      }
      const int key = work.begin + tile * kKeys + lane;
#pragma unroll
      for (int r = 0; r < kRowsPerWarp; ++r) {
        const float score = key > last[r] || last[r] - key > p.window ? -kInfinity : scores[r] * scale;
        const float highest = fmaxf(maximum[r], warp_max(score)), shift = highest == -kInfinity ? 0.0F : highest;
        const float decay = exp2f(maximum[r] - shift);
        scores[r] = exp2f(score - shift);
        sum[r] = sum[r] * decay + scores[r];
        maximum[r] = highest;
#pragma unroll
        for (int i = 0; i < D / 32; ++i) out[r][i] *= decay;
      }
#pragma unroll 4
      for (int k = 0; k < kKeys; ++k) {
        float v[D / 32];
#pragma unroll
        for (int i = 0; i < D / 32; ++i) v[i] = t.values[k * D + 32 * i + lane];
#pragma unroll
        for (int r = 0; r < kRowsPerWarp; ++r) {
          const float weight = __shfl_sync(0xffffffffU, scores[r], k);
#pragma unroll
          for (int i = 0; i < D / 32; ++i) out[r][i] += weight * v[i];
        }
      }
    }
    __syncthreads();
  }
  wait_for_copies<0>();
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
    const int row = warp * kRowsPerWarp + r;
    const float total = warp_sum(sum[r]);
    if (row >= work.rows) continue;
    // A lane's dimensions are 32 apart, and d == 0 is what writes the marks: lane 0 alone has it.
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      float one[1] = {out[r][i]};
      write_row<1, float>(p, work, row, 32 * i + lane, maximum[r], total, one);
    }
  }
  if (work.splits > 1 && last_of_tile(p, work)) add_parts<float>(p, work);
}

// -------------------------------------------------------------------------------------------------------- writes

// C: of the cache.
template <class T, class C, int N>
__global__ void paged_store_kernel(const T* k, i64 k_stride, const T* v, i64 v_stride, const std::int32_t* slots, C* keys,
                                   C* values, PagedShape shape) {
  let_next_begin();
  wait_for_previous();
  const int packs = shape.d / N, i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= shape.tokens * shape.n_kv_head * packs) return;
  const int token = i / (packs * shape.n_kv_head), head = i / packs % shape.n_kv_head, column = i % packs * N;
  const int slot = slots[token];
  if (slot < 0) return;
  const i64 to = cache_offset(shape, slot, head) + column, from = static_cast<i64>(head) * shape.d + column;
  float key[N], value[N];
  load<N>(k + token * k_stride + from, key);
  load<N>(v + token * v_stride + from, value);
  store<N>(keys + to, key);
  store<N>(values + to, value);
}

}  // namespace

bool paged_attention_takes(i64 d) { return d == 64 || d == 128; }

i64 paged_partial_floats(const PagedAttentionArguments& p) {
  return p.splits == 1 ? 0 : static_cast<i64>(p.tile_count) * p.n_kv_head * p.splits * part_floats(p);
}

void paged_attention(Element type, const PagedAttentionArguments& p, Stream stream) {
  if (p.tile_count == 0) return;
  const dim3 grid(static_cast<unsigned>(p.splits), static_cast<unsigned>(p.n_kv_head), static_cast<unsigned>(p.tile_count));
  const auto run = [&]<int D>(std::integral_constant<int, D>) {
    if (type == Element::kFloat) {
      constexpr std::size_t kBytes = kStages * sizeof(FloatTile<D>) + kTileRows * D * sizeof(float);
      launch(&paged_attention_float<D>, grid, kThreads, kBytes, stream, p);
      return;
    }
    visit_cache<bf16>(p.fp8, [&]<class T>(T) {
      constexpr std::size_t kTiles = std::size_t{kStages} * 2 * kTileKeys * D * sizeof(T);
      constexpr std::size_t kSums = WarpSums<D>::bytes(kTileRows), kBytes = kTiles > kSums ? kTiles : kSums;
      if (p.tall) {
        launch(&paged_attention_bf16<T, D, 4, 2>, grid, kThreads, kTiles, stream, p);
      } else {
        launch(&paged_attention_bf16<T, D, 1, 3>, grid, kThreads, kBytes, stream, p);
      }
    });
  };
  if (p.d == 64) {
    run(std::integral_constant<int, 64>());
  } else if (p.d == 128) {
    run(std::integral_constant<int, 128>());
  } else {
    throw std::runtime_error("the CUDA kernels of paged attention do not take heads of " + std::to_string(p.d));
  }
  check_launch("paged_attention");
}

void paged_store(Element type, const void* k, i64 k_stride, const void* v, i64 v_stride, const std::int32_t* slots, void* keys,
                 void* values, const PagedShape& shape, Stream stream) {
  if (shape.tokens == 0) return;
  const i64 elements = static_cast<i64>(shape.tokens) * shape.n_kv_head * shape.d;
  visit(type, [&]<class T>(T) {
    const auto run = [&]<int N>(std::integral_constant<int, N>) {
      constexpr unsigned kStoreThreads = 256;
      visit_cache<T>(shape.fp8, [&]<class C>(C) {
        launch(&paged_store_kernel<T, C, N>, blocks_for(elements / N, kStoreThreads), kStoreThreads, 0, stream,
               static_cast<const T*>(k), k_stride, static_cast<const T*>(v), v_stride, slots, static_cast<C*>(keys),
               static_cast<C*>(values), shape);
      });
    };
    constexpr int N = kPackSize<T>;
    if (shape.d % N == 0 && k_stride % N == 0 && v_stride % N == 0 && aligned(k) && aligned(v) && aligned(keys) &&
        aligned(values)) {
      run(std::integral_constant<int, N>());
    } else {
      run(std::integral_constant<int, 1>());
    }
  });
  check_launch("paged_store");
}

}  // namespace nanochat::ops::cuda
