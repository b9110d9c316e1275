// Attention of decodes over a cache in blocks, with what stands before it: the norm and rotation of queries and keys, and the
// writes to the cache. One kernel less in the chain of a decoding step, and the cached keys are on their way before the
// kernel in front of this one has ended.
//
// A block of threads has the heads that share a key/value head, for one part of a sequence's keys. The parts of a sequence are
// a cluster: each block stores its sums in those that add them up, in the order of the parts. The block of the last part
// writes the new key and value to the cache and takes them from its own shared memory.
//
// Where there is one part, a block takes several sequences in turn, and the first keys of the next one are on their way while
// it finishes the one before.

#include <algorithm>

#include "bulk_copies.cuh"
#include "device_code.cuh"
#include "paged_attention.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = kAttentionThreads;
constexpr int kBlocksAtOnce = 3;  // of a multiprocessor

// What a block has in shared memory behind the tiles of keys and values: where it begins, in bytes.
template <int D>
struct DecodeLayout {
  static constexpr int kTiles = kStages * 2 * kTileKeys * D * static_cast<int>(sizeof(bf16));
  static constexpr int kPitch = D + 8;  // of queries: rows of a fragment lie in different banks

  int group, parts;
  __host__ __device__ int warp_sums() const { return kTiles; }  // of add_warps()
  __host__ __device__ int queries() const {                     // bfloat16 (group, kPitch)
    return warp_sums() + (warp_sums_bytes<D>(group) + 15) / 16 * 16;
  }
  __host__ __device__ int fresh() const {  // bfloat16 (2, D): the new key and value
    return queries() + group * kPitch * static_cast<int>(sizeof(bf16));
  }
  __host__ __device__ int squares() const {  // float (warps): sums of squares of a row of p.stream
    return fresh() + 2 * D * static_cast<int>(sizeof(bf16));
  }
  __host__ __device__ int sums() const {  // float4 (parts, share()): of each part, what this block adds up
    return squares() + kAttentionWarps * static_cast<int>(sizeof(float));
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
constexpr int kPairs = 8;      // of numbers that a lane rotates

// A lane's numbers, from the second-level cache.
__device__ inline void load8(const bf16* p, float (&out)[kPairs]) {
  const uint4 pack = __ldcg(reinterpret_cast<const uint4*>(p));
  const u32 words[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
  }
}

#endif

template <int D>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce) paged_decode_kernel(const __grid_constant__ PagedDecode p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr int kTile = kTileKeys * D, kKeys = kTileKeys / kAttentionWarps, kHalf = D / 2, kLanes = kHalf / kPairs;
  extern __shared__ __align__(128) unsigned char shared[];
  const int group = p.n_head / p.n_kv_head, parts = static_cast<int>(gridDim.y), part = static_cast<int>(blockIdx.y);
  const int head = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32, lane = thread % 32, quad_row = lane / 4, quad = lane % 4;
  const DecodeLayout<D> layout = {group, parts};
  auto* const stages = reinterpret_cast<bf16*>(shared);  // kStages times keys and values
  auto* const queries = reinterpret_cast<bf16*>(shared + layout.queries());
  auto* const fresh = reinterpret_cast<bf16*>(shared + layout.fresh());
  auto* const squares = reinterpret_cast<float*>(shared + layout.squares());
  auto* const all_sums = reinterpret_cast<float4*>(shared + layout.sums());
  auto* const all_marks = reinterpret_cast<float2*>(shared + layout.marks());
  auto* const landed = reinterpret_cast<std::uint64_t*>(shared + layout.barrier());

  // This block's part of a sequence: keys from `begin` to `end`; the last of them is the new one in part `used` - 1.
  struct Item {
    PagedSequence sequence;
    int begin, end, used, tiles;
  };
  const auto item_of = [&](int index) {
    Item item = {};
    if (index >= p.sequence_count) return item;
    item.sequence = p.sequences[index];
    if (item.sequence.tokens == 0) return item;
    const int position = item.sequence.start, oldest = max(0, position - p.window), seen = position + 1 - oldest;
    const int each = ((seen + parts - 1) / parts + kPartStep - 1) / kPartStep * kPartStep;
    item.used = (seen + each - 1) / each;
    item.begin = oldest + part * each;
    item.end = min(item.begin + each, position + 1);
    if (part < item.used) item.tiles = (item.end - item.begin + kTileKeys - 1) / kTileKeys;
    return item;
  };

  // Tiles are copied in the order in which they are used, kStages ahead and beyond the end of a sequence.
  TileLoader<bf16, D, kTileKeys, PagedDecode> loader(p, head);
  int copied_item = static_cast<int>(blockIdx.z), copied_tiles = 0, tiles_left = 0;
  const auto open_item = [&] {
    for (; copied_item < p.sequence_count; copied_item += static_cast<int>(gridDim.z)) {
      const Item item = item_of(copied_item);
      tiles_left = item.tiles;
      if (tiles_left == 0) continue;
      loader.start(item.sequence.table, item.begin, min(item.end, item.sequence.start));  // the new key is not there yet
      loader.look_up();
      return;
    }
  };
  const auto copy_tile = [&] {
    if (tiles_left > 0) {
      bf16* const keys = stages + copied_tiles++ % kStages * 2 * kTile;
      loader.copy([&](int row, int chunk) { return place<D>(keys, row, chunk); },
                  [&](int row, int chunk) { return place<D>(keys + kTile, row, chunk); });
      if (--tiles_left > 0) {
        loader.look_up();
      } else {
        copied_item += static_cast<int>(gridDim.z);
        open_item();
      }
    }
    commit_copies();
  };

  // The first keys of this block's part in the next layer's cache, block of the cache by block.
  const auto fetch_ahead = [&](const Item& of) {
    if (p.next_keys == nullptr || of.tiles == 0) return;
    const int end = min(min(of.end, of.sequence.start), of.begin + p.keys_ahead);
    for (int i = thread / 2;; i += kThreads / 2) {
      const int block = of.begin / p.block_size + i, first = max(of.begin, block * p.block_size);
      if (first >= end) break;
      const i64 row = (static_cast<i64>(p.tables[of.sequence.table + block]) * p.n_kv_head + head) * p.block_size;
      const auto* const cache = static_cast<const bf16*>(thread % 2 == 0 ? p.next_keys : p.next_values);
      const int keys = min(end, (block + 1) * p.block_size) - first;
      fetch_bulk(cache + (row + first % p.block_size) * D, static_cast<u32>(keys * D) * sizeof(bf16));
    }
  };

  let_next_begin();
  Item item = item_of(static_cast<int>(blockIdx.z));
  open_item();
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) copy_tile();
  // This block's shared memory may be stored to. A cluster has one sequence.
  if (parts > 1 && item.used > 0) {
    if (thread == 0) {
      init_barrier(landed);
      publish_barriers();
      expect_bytes(landed, static_cast<u32>(layout.barrier() - layout.sums()));
    }
    arrive_cluster();
  }
  fetch_ahead(item);
  wait_for_previous();

  int used_tiles = 0;
  for (int index = static_cast<int>(blockIdx.z); index < p.sequence_count;) {
    if (item.used > 0) {
      const int position = item.sequence.start;
      const bool newest = part == item.used - 1;
      // kLanes lanes take a head: the queries, then in the newest part the key and the value.
      if (item.tiles > 0) {
        const int heads = group + (newest ? 2 : 0), i = thread % kLanes * kPairs;
        float cos[kPairs], sin[kPairs];
        load<kPairs>(p.cos + static_cast<i64>(position) * kHalf + i, cos);
        load<kPairs>(p.sin + static_cast<i64>(position) * kHalf + i, sin);
        const int slot = p.slots[item.sequence.row];
        // If the norm before the product was left out: its factor, which the norms of queries and keys cancel but for eps.
        float factor = 1.0F, eps = p.eps;
        if (p.stream != nullptr) {
          float sum = 0.0F;
          for (int c = thread * kPairs; c < p.width; c += kThreads * kPairs) {
            float values[kPairs];
            load8(static_cast<const bf16*>(p.stream) + static_cast<i64>(item.sequence.row) * p.width + c, values);
#pragma unroll
            for (int j = 0; j < kPairs; ++j) sum += values[j] * values[j];
          }
          sum = warp_sum(sum);
          if (lane == 0) squares[warp] = sum;
          __syncthreads();
          sum = 0.0F;
#pragma unroll
          for (int w = 0; w < kAttentionWarps; ++w) sum += squares[w];
          const float mean = sum / static_cast<float>(p.width) + p.eps;
          factor = rsqrtf(mean);
          eps *= mean;
        }
        for (int first = 0; first < heads; first += kThreads / kLanes) {
          const int which = first + thread / kLanes;
          const bool live = which < heads, rotated = which <= group;
          const int source = which < group    ? head * group + which
                             : which == group ? p.n_head + head
                                              : p.n_head + p.n_kv_head + head;
          float x1[kPairs] = {}, x2[kPairs] = {};
          if (live) {
            const i64 row = static_cast<i64>(item.sequence.row) * (p.n_head + 2 * p.n_kv_head) + source;
            const bf16* const x = static_cast<const bf16*>(p.qkv) + row * D + i;
            load8(x, x1);
            load8(x + kHalf, x2);
          }
          if (rotated) rotate(x1, x2, cos, sin);
          normalise_head<kLanes>(x1, x2, rotated, D, eps);
          if (!live) continue;
          if (!rotated) {
#pragma unroll
            for (int j = 0; j < kPairs; ++j) {
              x1[j] *= factor;
              x2[j] *= factor;
            }
          }
          bf16* const to = which < group ? queries + which * DecodeLayout<D>::kPitch : fresh + (which - group) * D;
          store<kPairs>(to + i, x1);
          store<kPairs>(to + kHalf + i, x2);
          if (which < group) continue;
          const PagedShape shape = {1, p.n_head, p.n_kv_head, D, p.block_size};
          bf16* const cached = static_cast<bf16*>(which == group ? p.keys : p.values) + cache_offset(shape, slot, head);
          store<kPairs>(cached + i, x1);
          store<kPairs>(cached + kHalf + i, x2);
        }
      }
      __syncthreads();

      u32 q[D / 16][4];
      {
        const bf16* const row0 = queries + min(quad_row, group - 1) * DecodeLayout<D>::kPitch + 2 * quad;
        const bf16* const row1 = queries + min(quad_row + 8, group - 1) * DecodeLayout<D>::kPitch + 2 * quad;
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
          q[j][0] = *reinterpret_cast<const u32*>(row0 + 16 * j);
          q[j][1] = *reinterpret_cast<const u32*>(row1 + 16 * j);
          q[j][2] = *reinterpret_cast<const u32*>(row0 + 16 * j + 8);
          q[j][3] = *reinterpret_cast<const u32*>(row1 + 16 * j + 8);
        }
      }

      RowSums<D> own;
      for (int tile = 0; tile < item.tiles; ++tile) {
        bf16* const keys = stages + used_tiles++ % kStages * 2 * kTile;
        wait_for_copies<kStages - 1>();
        __syncthreads();
        if (newest && tile == item.tiles - 1) {
          constexpr int kChunks = D / 8;
          const int row = (position - item.begin) % kTileKeys;
          if (thread < 2 * kChunks) {
            bf16* const to = place<D>(keys + thread / kChunks * kTile, row, thread % kChunks);
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(fresh + 8 * thread);
          }
          __syncthreads();
        }
        const int first = item.begin + tile * kTileKeys + warp * kKeys;
        own.template add<kKeys>(q, keys, keys + kTile, warp * kKeys, p.scale * kLog2E, first + kKeys <= item.end,
                                [&](int key, int) { return first + key >= item.end; });
        __syncthreads();  // the next copies overwrite this tile
        copy_tile();
      }
      own.complete();

      auto* const out = static_cast<bf16*>(p.out) + (static_cast<i64>(item.sequence.row) * p.n_head + head * group) * D;
      const auto write = [&](int row, int column, float sum, float(&values)[4]) {
#pragma unroll
        for (int j = 0; j < 4; ++j) values[j] /= sum;
        store<4>(out + row * D + column, values);
      };
      if (parts == 1) {
        add_warps(shared + layout.warp_sums(), own, group,
                  [&](int row, int column, float, float sum, float(&values)[4]) { write(row, column, sum, values); });
      } else {
        // Four columns of a row are added up by one part, their neighbours by the next.
        wait_cluster();
        add_warps(shared + layout.warp_sums(), own, group,
                  [&](int row, int column, float maximum, float sum, float(&values)[4]) {
                    const int place = row * (D / 4) + column / 4;
                    store_in_rank(all_sums + part * layout.share() + place / parts, place % parts,
                                  make_float4(values[0], values[1], values[2], values[3]), landed);
                    if (column / 4 < parts) {
                      store_in_rank(all_marks + part * group + row, column / 4, make_float2(maximum, sum), landed);
                    }
                  });
        wait_stores(landed, 0);
        for (int share = thread; share * parts + part < group * (D / 4); share += kThreads) {
          const int place = share * parts + part, row = place / (D / 4);
          float overall = -kInfinity, total = 0.0F, values[4] = {};
          for (int other = 0; other < item.used; ++other) overall = fmaxf(overall, all_marks[other * group + row].x);
          for (int other = 0; other < item.used; ++other) {
            const float2 mark = all_marks[other * group + row];
            const float4 value = all_sums[other * layout.share() + share];
            const float weight = weight_of(mark.x, overall);
            total += weight * mark.y;
            values[0] += weight * value.x;
            values[1] += weight * value.y;
            values[2] += weight * value.z;
            values[3] += weight * value.w;
          }
          write(row, place % (D / 4) * 4, total, values);
        }
      }
    }
    index += static_cast<int>(gridDim.z);
    item = item_of(index);
    fetch_ahead(item);
  }
#endif
}

}  // namespace

bool paged_decode_takes(i64 d, i64 group) { return (d == 64 || d == 128) && group <= kTileRows && overlaps_kernels(); }

void paged_decode(const PagedDecode& arguments, Stream stream) {
  PagedDecode p = arguments;
  if (p.sequence_count == 0) return;
  const int group = p.n_head / p.n_kv_head;
  if (!paged_decode_takes(p.d, group) || p.parts > kMostDecodeParts) {
    throw std::runtime_error("the CUDA kernel for decodes does not take heads of " + std::to_string(p.d) + ", " +
                             std::to_string(group) + " for each key, in " + std::to_string(p.parts) + " parts");
  }
  // With one part, as many blocks as run at a time take equal numbers of sequences.
  const int at_once = p.parts > 1 ? p.sequence_count : std::max(1, kBlocksAtOnce * multiprocessors() / p.n_kv_head);
  const int turns = (p.sequence_count + at_once - 1) / at_once, across = (p.sequence_count + turns - 1) / turns;
  const dim3 grid(static_cast<unsigned>(p.n_kv_head), static_cast<unsigned>(p.parts), static_cast<unsigned>(across));
  // As much of the next layer as stays in the second-level cache while the weights between pass through it.
  constexpr i64 kBytesAhead = i64{20} << 20;
  p.keys_ahead = static_cast<std::int32_t>(kBytesAhead / (i64{4} * p.d * p.n_kv_head * p.parts * p.sequence_count));
  const auto run = [&]<int D>(std::integral_constant<int, D>) {
    const DecodeLayout<D> layout = {group, p.parts};
    launch_clusters(&paged_decode_kernel<D>, grid, grid.y, kThreads, static_cast<std::size_t>(layout.bytes()), stream, p);
  };
  if (p.d == 64) {
    run(std::integral_constant<int, 64>());
  } else {
    run(std::integral_constant<int, 128>());
  }
  check_launch("paged_decode");
}

}  // namespace nanochat::ops::cuda
