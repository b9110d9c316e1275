// Attention of decodes over a cache in blocks, with what stands before it: the norm and rotation of queries and keys, and the
// writes to the cache. One kernel less in the chain of a decoding step, and the cached keys are on their way before the
// kernel in front of this one has ended.
//
// A block of threads has the heads that share a key/value head, for one part of a sequence's keys. Each of its warps has a ring
// of slots for 16 keys and their values, and takes every fourth 16 of the keys: warps wait for each other only where a sequence
// begins and ends. The parts of a sequence are a cluster: each block stores its sums in those that add them up, in the order of
// the parts. The block of the last part writes the new key and value to the cache and takes them from its own shared memory.
//
// Where there is one part, a block takes several sequences in turn. The first keys of the next one, and what its query is made
// of, are on their way before it finishes the one before: under full load, a read from memory takes some microseconds.
//
// A query is one of 8 columns of a product with 16 keys (tensor_cores.cuh). As one of 16 rows it would take twice as many products.

#include <algorithm>

#include "bulk_copies.cuh"
#include "device_code.cuh"
#include "paged_attention.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = kAttentionThreads, kWarps = kAttentionWarps;
constexpr int kKeys = 16;  // of a slot
constexpr int kMostTurns = 32;  // sequences of a block of threads
constexpr int kColumns = 8;  // queries of a tile: columns of a product
constexpr int kPairs = 8;  // of numbers that a lane rotates
constexpr int kStreamPacks = 2;  // of p.stream that a thread reads ahead
constexpr int kManyTurns = 4;  // see paged_decode()

// Blocks of threads of a multiprocessor. With more slots there is room for fewer.
__host__ __device__ constexpr int blocks_at_once(int slots) { return slots <= 2 ? 3 : 2; }

// A block's part of a sequence: keys from `begin` to `end`; the last of them is the new one in part `used` - 1.
struct DecodeItem {
  int row, table, position, begin, end, used;
  __host__ __device__ bool has_keys() const { return begin < end; }
};

// What a block has in shared memory behind the slots: where it begins, in bytes. A warp has kSlots slots of bfloat16, or twice as
// many of E4M3.
template <class T, int D, int kSlots>
struct DecodeLayout {
  static constexpr int kSlot = 2 * kKeys * D;  // numbers of keys and values
  static constexpr int kSlotBytes = kSlot * static_cast<int>(sizeof(T));
  static constexpr int kCount = kSlots * static_cast<int>(sizeof(bf16) / sizeof(T));  // slots of a warp
  static constexpr int kPitch = D + 8;  // of queries: rows of a fragment lie in different banks

  int group, parts;
  __host__ __device__ int items() const { return kWarps * kCount * kSlotBytes; }  // DecodeItem (kMostTurns)
  __host__ __device__ int warp_sums() const { return items() + kMostTurns * static_cast<int>(sizeof(DecodeItem)); }
  __host__ __device__ int queries() const {  // bfloat16 or, beside E4M3, half precision (group, kPitch)
    return warp_sums() + (WarpSums<D>::bytes(group) + 15) / 16 * 16;
  }
  __host__ __device__ int fresh() const {  // T (2, D): the new key and value
    return queries() + group * kPitch * static_cast<int>(sizeof(bf16));
  }
  __host__ __device__ int squares() const {  // float (warps): sums of squares of a row of p.stream
    return fresh() + 2 * D * static_cast<int>(sizeof(T));
  }
  __host__ __device__ int sums() const {  // float4 (parts, share()): of each part, what this block adds up
    return squares() + kWarps * static_cast<int>(sizeof(float));
  }
  __host__ __device__ int share() const { return (group * D / 4 + parts - 1) / parts; }
  __host__ __device__ int marks() const {  // float2 (parts, group): maximum and sum of weights
    return sums() + (parts > 1 ? parts * share() * static_cast<int>(sizeof(float4)) : 0);
  }
  __host__ __device__ int barrier() const {  // of all that other parts store here
    return marks() + (parts > 1 ? parts * group * static_cast<int>(sizeof(float2)) : 0);
  }
  __host__ __device__ int bytes() const { return barrier() + static_cast<int>(sizeof(std::uint64_t)); }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr int kPartStep = 16;  // parts are multiples of so many keys

// Eight numbers of bfloat16, from the second-level cache.
__device__ inline uint4 read8(const void* p, i64 element) {
  return __ldcg(reinterpret_cast<const uint4*>(static_cast<const bf16*>(p) + element));
}
__device__ inline void unpack(const uint4& pack, float (&out)[kPairs]) {
  const u32 words[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
  }
}

__device__ inline float sum_of_squares(const uint4& pack) {
  float values[kPairs], sum = 0.0F;
  unpack(pack, values);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) sum += values[i] * values[i];
  return sum;
}

// What a warp knows of queries after the keys that it has seen, as a fragment of matrices has it: a lane has two columns of each
// tile of queries, and of each 16 dimensions the rows lane / 4 and lane / 4 + 8, which beside E4M3 are the dimensions
// 2 * (lane / 4) and the next one. Exponents are of two.
template <class T, int D, int kTiles>
struct QuerySums {
  float out[kTiles][D / 16][4] = {};  // weighted sums of values
  float maximum[kTiles][2], sum[kTiles][2] = {};

  __device__ QuerySums() {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) maximum[t][0] = maximum[t][1] = -kInfinity;
  }

  // Takes in kKeys keys, of which the first `count` are seen.
  __device__ void add(const u32 (&q)[kTiles][D / 16][2], T* keys, T* values, float scale, int count) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float products[kTiles][2][4] = {};  // two sums, so that a product waits for every other one before it
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      u32 k[4];
      if constexpr (kIsE4M3<T>) {
        u32 four[2];
        load_matrices(four, place<D>(keys, lane % 16, i));
#pragma unroll
        for (int e = 0; e < 4; ++e) k[e] = to_half(four[e % 2] >> e / 2 * 16);
      } else {
        load_matrices(k, place<D>(keys, lane % 16, 2 * i + lane / 16));
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) multiply_add<T>(products[t][i % 2], k, q[t][i][0], q[t][i][1]);
    }
    u32 weights[kTiles][2];
    float decay[kTiles][2];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      float scores[4], highest[2] = {maximum[t][0], maximum[t][1]};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        scores[e] = (products[t][0][e] + products[t][1][e]) * scale;
        if (lane / 4 + 8 * (e / 2) >= count) scores[e] = -kInfinity;
        highest[e % 2] = fmaxf(highest[e % 2], scores[e]);
      }
      float shift[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) {
          highest[c] = fmaxf(highest[c], __shfl_xor_sync(0xffffffffU, highest[c], offset));
        }
        shift[c] = highest[c] == -kInfinity ? 0.0F : highest[c];
        decay[t][c] = power_of_two(maximum[t][c] - shift[c]);
        maximum[t][c] = highest[c];
        sum[t][c] *= decay[t][c];
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        scores[e] = power_of_two(scores[e] - shift[e % 2]);
        sum[t][e % 2] += scores[e];
      }
      weights[t][0] = transpose_matrix(pack_operand<T>(scores[0], scores[1]));
      weights[t][1] = transpose_matrix(pack_operand<T>(scores[2], scores[3]));
    }
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
      u32 v[4];
      if constexpr (kIsE4M3<T>) {
        u32 pairs[2];
        load_matrices_transposed(pairs, place<D>(values, lane % 16, i));
        split_values(pairs[0], v[0], v[1]);
        split_values(pairs[1], v[2], v[3]);
      } else {
        load_matrices_transposed(v, place<D>(values, lane % 8 + lane / 16 * 8, 2 * i + lane / 8 % 2));
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) out[t][i][e] *= decay[t][e % 2];
        multiply_add<T>(out[t][i], v, weights[t][0], weights[t][1]);
      }
    }
  }

  // Behind the last keys of this warp.
  __device__ void store(const WarpSums<D>& to) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) sum[t][c] += __shfl_xor_sync(0xffffffffU, sum[t][c], offset);
        const int row = kColumns * t + 2 * (lane % 4) + c;
        if (row >= to.rows) continue;
        float* const sums = to.row(warp, row) + (kIsE4M3<T> ? 2 : 1) * (lane / 4);
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
          sums[16 * i] = out[t][i][c];
          sums[16 * i + (kIsE4M3<T> ? 1 : 8)] = out[t][i][2 + c];
        }
        if (lane / 4 == 0) to.marks[warp * to.rows + row] = make_float2(maximum[t][c], sum[t][c]);
      }
    }
  }
};

#endif

// T: of keys and values; kTiles: tiles of queries that share a key/value head; kSlots: as in DecodeLayout.
template <class T, int D, int kTiles, int kSlots>
__global__ void __launch_bounds__(kThreads, blocks_at_once(kSlots)) paged_decode_kernel(const __grid_constant__ PagedDecode p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  using Layout = DecodeLayout<T, D, kSlots>;
  using Query = std::conditional_t<kIsE4M3<T>, __half, bf16>;
  constexpr int kHalf = D / 2, kLanes = kHalf / kPairs, kHeadsAtOnce = kThreads / kLanes;
  constexpr int kPasses = (kColumns * kTiles + 2 + kHeadsAtOnce - 1) / kHeadsAtOnce;
  extern __shared__ __align__(128) unsigned char shared[];
  const int group = p.group, parts = static_cast<int>(gridDim.y), part = static_cast<int>(blockIdx.y);
  const int head = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32, lane = thread % 32;
  const Layout layout = {group, parts};
  auto* const items = reinterpret_cast<DecodeItem*>(shared + layout.items());
  const WarpSums<D> warp_sums(shared + layout.warp_sums(), group);
  auto* const queries = reinterpret_cast<Query*>(shared + layout.queries());
  auto* const fresh = reinterpret_cast<T*>(shared + layout.fresh());
  auto* const squares = reinterpret_cast<float*>(shared + layout.squares());
  auto* const all_sums = reinterpret_cast<float4*>(shared + layout.sums());
  auto* const all_marks = reinterpret_cast<float2*>(shared + layout.marks());
  auto* const landed = reinterpret_cast<std::uint64_t*>(shared + layout.barrier());

  let_next_begin();
  if (thread < p.turns) {
    const int index = static_cast<int>(blockIdx.z) + thread * static_cast<int>(gridDim.z);
    DecodeItem item = {};
    if (index < p.sequence_count) {
      const PagedSequence sequence = p.sequences[index];
      if (sequence.tokens > 0) {
        const int position = sequence.start, oldest = max(0, position - p.window), seen = position + 1 - oldest;
        const int each = (((seen + parts - 1) >> p.parts_shift) + kPartStep - 1) / kPartStep * kPartStep;
        item = {.row = sequence.row, .table = sequence.table, .position = position, .begin = oldest + part * each};
        item.end = min(item.begin + each, position + 1);
        item.used = parts == 1 ? 1 : (seen + each - 1) / each;
      }
    }
    items[thread] = item;
  }
  if (parts > 1 && thread == 0) {
    init_barrier(landed);
    publish_barriers();
    expect_bytes(landed, static_cast<u32>(layout.barrier() - layout.sums()));
  }
  __syncthreads();

  const auto item_of = [&](int turn) { return turn < p.turns ? items[turn] : DecodeItem{}; };
  const auto block_of = [&](int position) { return cache_block_of(p, position); };
  // Where a position that is in `block` of the cache has its key: in rows of D numbers.
  const auto row_of = [&](int block, int position) {
    return (block * p.n_kv_head + head) * p.block_size + position - block_of(position) * p.block_size;
  };

  // This warp's slots, which are filled in the order in which they are used, as far ahead as there are slots and beyond the end of
  // a sequence. A lane copies 16 bytes of every kRowsAtOnce-th key. It looks up one key, a slot ahead, and has the others from
  // its neighbours.
  constexpr int kNumbers = 16 / static_cast<int>(sizeof(T)), kChunks = D / kNumbers, kRowsAtOnce = 32 / kChunks;
  constexpr int kRows = kKeys / kRowsAtOnce, kStride = kWarps * kKeys;
  T* const slots = reinterpret_cast<T*>(shared) + warp * Layout::kCount * Layout::kSlot;
  const std::uint64_t once = read_once();
  const std::int32_t* table = nullptr;
  int opened = -1, filled = 0, next = 0, next_end = 0, cached_end = 0, found = 0;
  const auto look_up = [&] {
#pragma unroll 1
    while (next >= next_end && ++opened < p.turns) {
      const DecodeItem item = items[opened];
      next = item.begin + warp * kKeys;
      next_end = item.end;
      cached_end = min(item.end, item.position);  // the new key is not there yet
      table = p.tables + item.table;
    }
    if (opened < p.turns) found = table[block_of(max(min(next + lane % kKeys, cached_end - 1), 0))];
  };
  const auto fill_slot = [&] {
    if (opened < p.turns) {
      const int position = next + lane % kKeys, row = position < cached_end ? row_of(found, position) : -1;
      T* const keys = slots + filled * Layout::kSlot;
      filled = filled + 1 == Layout::kCount ? 0 : filled + 1;
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int key = i * kRowsAtOnce + lane / kChunks, from_row = __shfl_sync(0xffffffffU, row, key);
        const i64 from = static_cast<i64>(max(from_row, 0)) * D + lane % kChunks * kNumbers;
        T* const to = place<D>(keys, key, lane % kChunks);
        copy_async(to, static_cast<const T*>(p.keys) + from, from_row >= 0, once);
        copy_async(to + kKeys * D, static_cast<const T*>(p.values) + from, from_row >= 0, once);
      }
      next += kStride;
      look_up();
    }
    commit_copies();
  };

  // What the queries of a sequence are made of, and in its newest part the key and the value. kLanes lanes take a head.
  struct Inputs {
    uint4 first[kPasses], second[kPasses], stream[kStreamPacks];
    float cos[kPairs], sin[kPairs];
    int slot;
  };
  const int pair = thread % kLanes * kPairs;
  const auto newest = [&](const DecodeItem& of) { return part == of.used - 1; };
  const auto heads_of = [&](const DecodeItem& of) { return !of.has_keys() ? 0 : group + (newest(of) ? 2 : 0); };
  const auto stream_row = [&](const DecodeItem& of) { return static_cast<i64>(of.row) * p.width; };
  const auto read_inputs = [&](const DecodeItem& of, Inputs& to) {
    const int heads = heads_of(of);
    if (heads == 0) return;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int which = pass * kHeadsAtOnce + thread / kLanes;
      if (which >= heads) continue;
      const int source = which < group    ? head * group + which
                         : which == group ? p.n_head + head
                                          : p.n_head + p.n_kv_head + head;
      const i64 x = (static_cast<i64>(of.row) * (p.n_head + 2 * p.n_kv_head) + source) * D + pair;
      to.first[pass] = read8(p.qkv, x);
      to.second[pass] = read8(p.qkv, x + kHalf);
    }
    if (p.stream != nullptr) {
#pragma unroll
      for (int i = 0; i < kStreamPacks; ++i) {
        const int column = (i * kThreads + thread) * kPairs;
        to.stream[i] = column < p.width ? read8(p.stream, stream_row(of) + column) : make_uint4(0, 0, 0, 0);
      }
    }
    load<kPairs>(p.cos + static_cast<i64>(of.position) * kHalf + pair, to.cos);
    load<kPairs>(p.sin + static_cast<i64>(of.position) * kHalf + pair, to.sin);
    to.slot = p.slots[of.row];
  };
  // Of this warp, for use_inputs() behind a barrier.
  const auto add_squares = [&](const DecodeItem& of, const Inputs& from) {
    if (p.stream == nullptr || !of.has_keys()) return;
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kStreamPacks; ++i) sum += sum_of_squares(from.stream[i]);
#pragma unroll 1
    for (int column = (kStreamPacks * kThreads + thread) * kPairs; column < p.width; column += kThreads * kPairs) {
      sum += sum_of_squares(read8(p.stream, stream_row(of) + column));
    }
    sum = warp_sum(sum);
    if (lane == 0) squares[warp] = sum;
  };
  // Norm and rotation: queries to shared memory, a new key and value there and to the cache.
  const auto use_inputs = [&](const DecodeItem& of, const Inputs& from) {
    const int heads = heads_of(of);
    if (heads == 0) return;
    // If the norm before the product was left out: its factor, which the norms of queries and keys cancel but for eps.
    float factor = 1.0F, eps = p.eps;
    if (p.stream != nullptr) {
      float sum = 0.0F;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += squares[w];
      const float mean = sum / static_cast<float>(p.width) + p.eps;
      factor = rsqrtf(mean);
      eps *= mean;
    }
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int which = pass * kHeadsAtOnce + thread / kLanes;
      const bool live = which < heads, rotated = which <= group;
      float x1[kPairs] = {}, x2[kPairs] = {};
      if (live) {
        unpack(from.first[pass], x1);
        unpack(from.second[pass], x2);
      }
      if (rotated) rotate(x1, x2, from.cos, from.sin);
      normalise_head<kLanes>(x1, x2, rotated, D, eps);
      if (!live) continue;
      if (!rotated) {
#pragma unroll
        for (int j = 0; j < kPairs; ++j) {
          x1[j] *= factor;
          x2[j] *= factor;
        }
      }
      if constexpr (kIsE4M3<T>) {  // queries have another type than keys and values
        if (which < group) {
          store<kPairs>(queries + which * Layout::kPitch + pair, x1);
          store<kPairs>(queries + which * Layout::kPitch + pair + kHalf, x2);
          continue;
        }
      }
      T* const to = (!kIsE4M3<T> && which < group ? reinterpret_cast<T*>(queries) + which * Layout::kPitch
                                                  : fresh + (which - group) * D) +
                    pair;
      store<kPairs>(to, x1);
      store<kPairs>(to + kHalf, x2);
      if (which < group) continue;
      T* const cached = static_cast<T*>(which == group ? p.keys : p.values) +
                        static_cast<i64>(row_of(block_of(from.slot), from.slot)) * D + pair;
      store<kPairs>(cached, x1);
      store<kPairs>(cached + kHalf, x2);
    }
  };

  look_up();
#pragma unroll 1
  for (int slot = 0; slot < Layout::kCount; ++slot) fill_slot();
  const DecodeItem opening = item_of(0);
  // This block's shared memory may be stored to. A cluster has one sequence.
  if (parts > 1 && opening.used > 0) arrive_cluster();
  wait_for_previous();

  Inputs inputs;
  DecodeItem item = {};
  int used = 0;
  // In each turn the sequence that follows is prepared; in the first, nothing else.
#pragma unroll 1
  for (int turn = -1; turn < p.turns; ++turn) {
    const DecodeItem following = item_of(turn + 1);
    read_inputs(following, inputs);
    if (item.used > 0) {
      u32 q[kTiles][D / 16][2];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const Query* const query = queries + min(kColumns * t + lane / 4, group - 1) * Layout::kPitch + kPair<T> * (lane % 4);
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
          q[t][j][0] = *reinterpret_cast<const u32*>(query + 16 * j);
          q[t][j][1] = *reinterpret_cast<const u32*>(query + 16 * j + kNextPair<T>);
        }
      }
      QuerySums<T, D, kTiles> own;
#pragma unroll 1
      for (int first = item.begin + warp * kKeys; first < item.end; first += kStride) {
        T* const keys = slots + used * Layout::kSlot;
        used = used + 1 == Layout::kCount ? 0 : used + 1;
        T* const values = keys + kKeys * D;
        wait_for_copies<Layout::kCount - 1>();
        __syncwarp();
        const int position = item.position - first;  // of the new key
        if (newest(item) && position < kKeys) {
          if (lane < 2 * kChunks) {
            *reinterpret_cast<uint4*>(place<D>(lane < kChunks ? keys : values, position,
                                               lane % kChunks)) = *reinterpret_cast<const uint4*>(fresh + kNumbers * lane);
          }
          __syncwarp();
        }
        own.add(q, keys, values, p.scale * kLog2E, item.end - first);
        __syncwarp();  // the next copies overwrite this slot
        fill_slot();
      }
      own.store(warp_sums);
    }
    add_squares(following, inputs);
    __syncthreads();  // sums are there; no warp needs this sequence's queries any more
    if (item.used > 0) {
      auto* const out = static_cast<bf16*>(p.out) + (static_cast<i64>(item.row) * p.n_head + head * group) * D;
      const auto write = [&](int row, int column, WeightedSum& sum) {
        sum.divide();
        store<4>(out + row * D + column, sum.values);
      };
      if (parts == 1) {
        warp_sums.add_up([&](int row, int column, float, WeightedSum& sum) { write(row, column, sum); });
      } else {
        // Four columns of a row are added up by one part, their neighbours by the next.
        wait_cluster();
        warp_sums.add_up([&](int row, int column, float maximum, const WeightedSum& sum) {
          const int place = row * (D / 4) + column / 4;
          store_in_rank(all_sums + part * layout.share() + (place >> p.parts_shift), place & (parts - 1),
                        make_float4(sum.values[0], sum.values[1], sum.values[2], sum.values[3]), landed);
          if (column / 4 < parts) {
            store_in_rank(all_marks + part * group + row, column / 4, make_float2(maximum, sum.weights), landed);
          }
        });
        wait_stores(landed, 0);
#pragma unroll 1
        for (int share = thread; share * parts + part < group * (D / 4); share += kThreads) {
          const int place = share * parts + part, row = place / (D / 4);
          float overall = -kInfinity;
#pragma unroll
          for (int other = 0; other < kMostDecodeParts; ++other) {
            if (other < item.used) overall = fmaxf(overall, all_marks[other * group + row].x);
          }
          WeightedSum total;
#pragma unroll 2
          for (int other = 0; other < item.used; ++other) {
            total.add(all_marks[other * group + row], all_sums[other * layout.share() + share], overall);
          }
          write(row, place % (D / 4) * 4, total);
        }
      }
    }
    use_inputs(following, inputs);
    __syncthreads();
    item = following;
  }
#endif
}

template <class T, int D, int kTiles, int kSlots>
void launch_decodes(PagedDecode p, int across, Stream stream) {
  p.turns = (p.sequence_count + across - 1) / across;
  const dim3 grid(static_cast<unsigned>(p.n_kv_head), static_cast<unsigned>(p.parts), static_cast<unsigned>(across));
  const DecodeLayout<T, D, kSlots> layout = {p.group, p.parts};
  launch_clusters(&paged_decode_kernel<T, D, kTiles, kSlots>, grid, grid.y, kThreads, static_cast<std::size_t>(layout.bytes()),
                  stream, p);
}

// So many blocks of threads side by side that each has equally many sequences, and no more than run at a time.
int blocks_across(const PagedDecode& p, int slots) {
  if (p.parts > 1) return p.sequence_count;
  const int at_once = std::max(1, blocks_at_once(slots) * multiprocessors() / p.n_kv_head);
  const int turns = std::min((p.sequence_count + at_once - 1) / at_once, kMostTurns);
  return (p.sequence_count + turns - 1) / turns;
}

__global__ void __launch_bounds__(kThreads) upload_kernel(const uint4* host, uint4* device, i64 count) {
  const i64 i = static_cast<i64>(blockIdx.x) * kThreads + threadIdx.x;
  const uint4 item = i < count ? __ldcv(host + i) : uint4{};
  wait_for_previous();  // which reads what was there
  if (i < count) device[i] = item;
  __threadfence();  // for a kernel that does not wait, if one comes next all the same
}

}  // namespace

void upload(const void* host, void* device, i64 bytes, Stream stream) {
  const i64 count = bytes / static_cast<i64>(sizeof(uint4));
  launch(&upload_kernel, blocks_for(count, kThreads), kThreads, 0, stream, static_cast<const uint4*>(host),
         static_cast<uint4*>(device), count);
  check_launch("upload");
}

bool paged_decode_takes(i64 d, i64 group) { return (d == 64 || d == 128) && group <= kTileRows && overlaps_kernels(); }

void paged_decode(const PagedDecode& arguments, Stream stream) {
  PagedDecode p = arguments;
  if (p.sequence_count == 0) return;
  const int group = p.group = p.n_head / p.n_kv_head;
  while (p.parts > 1 << p.parts_shift) ++p.parts_shift;
  if (!paged_decode_takes(p.d, group) || p.parts > kMostDecodeParts || p.parts != 1 << p.parts_shift) {
    throw std::runtime_error("the CUDA kernel for decodes does not take heads of " + std::to_string(p.d) + ", " +
                             std::to_string(group) + " for each key, in " + std::to_string(p.parts) + " parts");
  }
  // Two blocks of three slots are faster than three of two slots with many sequences for each block; and with parts, of which no
  // more than two stand on a multiprocessor anyway.
  const bool three = p.parts > 1 || p.sequence_count >= kManyTurns * blocks_across(p, 3);
  const auto run = [&]<int D, int kTiles>(std::integral_constant<int, D>, std::integral_constant<int, kTiles>) {
    visit_cache<bf16>(p.fp8, [&]<class T>(T) {
      three ? launch_decodes<T, D, kTiles, 3>(p, blocks_across(p, 3), stream)
            : launch_decodes<T, D, kTiles, 2>(p, blocks_across(p, 2), stream);
    });
  };
  const auto run_tiles = [&]<int D>(std::integral_constant<int, D> d) {
    group <= kColumns ? run(d, std::integral_constant<int, 1>()) : run(d, std::integral_constant<int, 2>());
  };
  static_assert(kTileRows <= 2 * kColumns);
  p.d == 64 ? run_tiles(std::integral_constant<int, 64>()) : run_tiles(std::integral_constant<int, 128>());
  check_launch("paged_decode");
}

}  // namespace nanochat::ops::cuda
