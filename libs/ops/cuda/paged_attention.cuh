#pragma once
// What the kernels of paged attention share (paged_attention.cu, paged_decode.cu): how tiles of keys and values come to shared
// memory, and what a warp does with a tile. Blocks have kAttentionThreads threads.
//
// T is the type of keys and values: bfloat16, or E4M3, which becomes half precision between shared memory and the products. Where
// a lane loads two pairs of bfloat16, eight columns apart, it loads four neighbouring numbers of E4M3. Products with E4M3
// therefore permute 16 columns: for scores, those of queries and keys alike, so that the sum stays the same; for values, the even
// ones come first, then the odd ones (split_values()).

#include "device_code.cuh"
#include "e4m3.cuh"
#include "tensor_cores.cuh"

namespace nanochat::ops::cuda {

inline constexpr int kAttentionThreads = 128, kAttentionWarps = kAttentionThreads / 32;
inline constexpr int kStages = 2;  // tiles of keys in shared memory: one in use, the others on their way
inline constexpr float kLog2E = 1.44269504088896341F;
inline constexpr float kInfinity = INFINITY;

template <class T>
inline constexpr bool kIsE4M3 = std::is_same_v<T, e4m3>;

// Lane l has four of a query's 16 numbers in a fragment: the pair from kPair<T> * (l % 4) on, and the one kNextPair<T> further on.
template <class T>
inline constexpr int kPair = kIsE4M3<T> ? 4 : 2;
template <class T>
inline constexpr int kNextPair = kIsE4M3<T> ? 2 : 8;

// exp2(x - maximum) where a row may not have seen a key yet.
__device__ inline float weight_of(float maximum, float overall) {
  return overall == -kInfinity ? 0.0F : power_of_two(maximum - overall);
}

// position / block_size: the block of its sequence that has a position, or the block of the cache that has a slot. A division has
// forty instructions, and fetching instructions that no cache holds takes longer than executing them.
template <class Arguments>
__device__ inline int cache_block_of(const Arguments& p, int position) {
  return p.block_shift >= 0 ? position >> p.block_shift
                            : static_cast<int>(__umul64hi(static_cast<u32>(position), p.block_inverse));
}

// A sum of rows of values, each with a weight of its own, of which a thread has four columns.
struct WeightedSum {
  float weights = 0.0F, values[4] = {};
  // mark: the row's maximum and sum of weights; overall: the maximum of all rows.
  __device__ void add(const float2& mark, const float4& row, float overall) {
    const float weight = weight_of(mark.x, overall);
    weights += weight * mark.y;
    values[0] += weight * row.x;
    values[1] += weight * row.y;
    values[2] += weight * row.z;
    values[3] += weight * row.w;
  }
  __device__ void divide() {
    const float share = 1.0F / weights;
#pragma unroll
    for (float& value : values) value *= share;
  }
};

// Keys and values of kKeys positions at a time, from their blocks to shared memory. A thread copies 16 bytes of every
// kRowsAtOnce-th position; the block tables are read a tile ahead.
template <class T, int D, int kKeys, class Arguments>
class TileLoader {
 public:
  static constexpr int kChunks = D * static_cast<int>(sizeof(T)) / 16, kRowsAtOnce = kAttentionThreads / kChunks;
  static constexpr int kRows = kKeys / kRowsAtOnce;
  static_assert(kAttentionThreads % kChunks == 0 && kKeys % kRowsAtOnce == 0);

  __device__ TileLoader(const Arguments& p, int kv_head) : p_(p), kv_head_(kv_head) {}

  // Takes the positions from `begin` to `end` of a sequence whose block table is element `table` of p.tables and what follows.
  __device__ void start(int table, int begin, int end) {
    table_ = p_.tables + table;
    position_ = begin + row();
    end_ = end;
  }

  __device__ int chunk() const { return static_cast<int>(threadIdx.x) % kChunks; }
  __device__ int row() const { return static_cast<int>(threadIdx.x) / kChunks; }

  // Reads the block tables for the next tile.
  __device__ void look_up() {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int position = position_ + i * kRowsAtOnce;
      block_[i] = position < end_ ? table_[block_of(position)] : -1;
    }
  }

  // Begins the copies of that tile: place(row, chunk) says where they go. Zeros stand where no key is.
  template <class PlaceKey, class PlaceValue>
  __device__ void copy(const PlaceKey& key_place, const PlaceValue& value_place) {
    i64 from[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int position = position_ + i * kRowsAtOnce;
      const i64 row = (static_cast<i64>(max(block_[i], 0)) * p_.n_kv_head + kv_head_) * p_.block_size;
      from[i] = (row + position - block_of(position) * p_.block_size) * D + chunk() * (16 / static_cast<int>(sizeof(T)));
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      copy_async(key_place(row() + i * kRowsAtOnce, chunk()), static_cast<const T*>(p_.keys) + from[i], block_[i] >= 0);
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      copy_async(value_place(row() + i * kRowsAtOnce, chunk()), static_cast<const T*>(p_.values) + from[i], block_[i] >= 0);
    }
    position_ += kKeys;
  }

 private:
  __device__ int block_of(int position) const { return cache_block_of(p_, position); }

  const Arguments& p_;
  int kv_head_;
  const std::int32_t* table_ = nullptr;
  int position_ = 0, end_ = 0;
  int block_[kRows];
};

// A tile of kTileKeys rows of D numbers in shared memory. The chunks of 16 bytes of a row are permuted, so that eight
// neighbouring rows of a matrix fragment lie in different banks.
template <int D, class T>
__device__ inline T* place(T* tile, int row, int chunk) {
  constexpr int kNumbers = 16 / static_cast<int>(sizeof(T)), kChunks = D / kNumbers;
  constexpr int kRowsOfBanks = kChunks < 8 ? 8 / kChunks : 1;
  return tile + row * D + ((chunk ^ (row / kRowsOfBanks & (8 / kRowsOfBanks - 1))) * kNumbers);
}

// Of two keys each, a pair of neighbouring values: the first value of both, and the second of both, in half precision.
__device__ inline void split_values(u32 pairs, u32& first, u32& second) {
  const u32 sorted = __byte_perm(pairs, 0, 0x3120);
  first = to_half(sorted);
  second = to_half(sorted >> 16);
}

template <class T>
__device__ inline void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if constexpr (kIsE4M3<T>) {
    multiply_add_half(c, a, b0, b1);
  } else {
    multiply_add(c, a, b0, b1);
  }
}
// Two numbers as one operand of a product with keys or values of type T.
template <class T>
__device__ inline u32 pack_operand(float low, float high) {
  if constexpr (kIsE4M3<T>) return pack_half(low, high);
  return pack_bf16(low, high);
}

// What the warps of a block know of `rows` rows, in shared memory: each warp saw other keys.
template <int D>
struct WarpSums {
  static constexpr int kPitch = D + 8;  // the rows of a fragment lie in different banks
  float* sums;  // (warps, rows, kPitch): weighted sums of values
  float2* marks;  // (warps, rows): maximum, sum of weights
  int rows;

  __host__ __device__ static constexpr int bytes(int rows) {
    return kAttentionWarps * rows * (kPitch * static_cast<int>(sizeof(float)) + static_cast<int>(sizeof(float2)));
  }
  __device__ WarpSums(unsigned char* shared, int row_count)
      : sums(reinterpret_cast<float*>(shared)), marks(reinterpret_cast<float2*>(sums + kAttentionWarps * row_count * kPitch)),
        rows(row_count) {}

  __device__ float* row(int warp, int row) const { return sums + (warp * rows + row) * kPitch; }

  // Adds them up in the order of the warps. Calls body(row, column, maximum, sum) for four columns at a time.
  template <class Body>
  __device__ void add_up(const Body& body) const {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < rows * (D / 4); i += kAttentionThreads) {
      const int at = i / (D / 4), column = i % (D / 4) * 4;
      float overall = -kInfinity;
#pragma unroll
      for (int w = 0; w < kAttentionWarps; ++w) overall = fmaxf(overall, marks[w * rows + at].x);
      WeightedSum total;
#pragma unroll
      for (int w = 0; w < kAttentionWarps; ++w) {
        total.add(marks[w * rows + at], *reinterpret_cast<const float4*>(row(w, at) + column), overall);
      }
      body(at, column, overall, total);
    }
  }
};

// What a warp knows of the 16 rows of a tile after the keys that it has seen, as a fragment of matrices has it: lane l has the
// rows l / 4 and l / 4 + 8. Exponents are of two.
template <class T, int D>
struct RowSums {
  float out[D / 8][4] = {};  // weighted sums of values: visit() tells of which columns
  float maximum[2] = {-kInfinity, -kInfinity}, sum[2] = {};

  // Takes in kKeys keys of a tile from row `first` on. q: the queries as fragments. hidden(key, row): whether the key `first` +
  // key is hidden from row 0 or 1 of this lane; not asked where every row sees all.
  template <int kKeys, class Hidden>
  __device__ void add(const u32 (&q)[D / 16][4], T* keys, T* values, int first, float scale, bool all_see,
                      const Hidden& hidden) {
    const int lane = static_cast<int>(threadIdx.x) % 32, quad = lane % 4;
    float scores[kKeys / 8][4] = {};
#pragma unroll
    for (int i = 0; i < D / 16; ++i) {
#pragma unroll
      for (int j = 0; j < kKeys / 16; ++j) {
        u32 k[4];
        if constexpr (kIsE4M3<T>) {
          u32 four[2];
          load_matrices(four, place<D>(keys, first + 16 * j + lane % 16, i));
#pragma unroll
          for (int e = 0; e < 4; ++e) k[e] = to_half(four[e / 2] >> e % 2 * 16);
        } else {
          load_matrices(k, place<D>(keys, first + 16 * j + (lane & 7) + (lane / 16) * 8, 2 * i + (lane / 8) % 2));
        }
        multiply_add<T>(scores[2 * j], q[i], k[0], k[1]);
        multiply_add<T>(scores[2 * j + 1], q[i], k[2], k[3]);
      }
    }
    float highest[2] = {maximum[0], maximum[1]};
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        scores[j][e] *= scale;
        if (!all_see && hidden(8 * j + 2 * quad + e % 2, e / 2)) scores[j][e] = -kInfinity;
        highest[e / 2] = fmaxf(highest[e / 2], scores[j][e]);
      }
    }
    float shift[2], decay[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffU, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffU, highest[r], 2));
      shift[r] = highest[r] == -kInfinity ? 0.0F : highest[r];
      decay[r] = power_of_two(maximum[r] - shift[r]);
      maximum[r] = highest[r];
      sum[r] *= decay[r];
    }
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        scores[j][e] = power_of_two(scores[j][e] - shift[e / 2]);
        sum[e / 2] += scores[j][e];
      }
    }
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[i][e] *= decay[e / 2];
    }
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      u32 weights[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float(&pairs)[4] = scores[2 * j + e / 2];
        weights[e] = pack_operand<T>(pairs[e % 2 * 2], pairs[e % 2 * 2 + 1]);
      }
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        u32 v[4];
        if constexpr (kIsE4M3<T>) {
          u32 pairs[2];
          load_matrices_transposed(pairs, place<D>(values, first + 16 * j + lane % 16, i));
          split_values(pairs[0], v[0], v[2]);
          split_values(pairs[1], v[1], v[3]);
        } else {
          load_matrices_transposed(v, place<D>(values, first + 16 * j + (lane & 15), 2 * i + lane / 16));
        }
        multiply_add<T>(out[2 * i], weights, v[0], v[1]);
        multiply_add<T>(out[2 * i + 1], weights, v[2], v[3]);
      }
    }
  }

  // Behind the last keys: the sums of weights of whole rows.
  __device__ void complete() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(0xffffffffU, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xffffffffU, sum[r], 2);
    }
  }

  // Calls body(column, values) with this lane's weighted sums of row 0 or 1, those of neighbouring columns together.
  template <class Body>
  __device__ void visit(int r, const Body& body) const {
    const int quad = static_cast<int>(threadIdx.x) % 4;
    if constexpr (kIsE4M3<T>) {
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        float four[4] = {out[2 * i][2 * r], out[2 * i + 1][2 * r], out[2 * i][2 * r + 1], out[2 * i + 1][2 * r + 1]};
        body(16 * i + 4 * quad, four);
      }
    } else {
#pragma unroll
      for (int i = 0; i < D / 8; ++i) {
        float pair[2] = {out[i][2 * r], out[i][2 * r + 1]};
        body(8 * i + 2 * quad, pair);
      }
    }
  }

  // This warp's complete sums.
  __device__ void store(const WarpSums<D>& to) const {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, quad = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane / 4 + 8 * r;
      if (row >= to.rows) continue;
      visit(r, [&]<int N>(int column, const float(&values)[N]) { cuda::store<N>(to.row(warp, row) + column, values); });
      if (quad == 0) to.marks[warp * to.rows + row] = make_float2(maximum[r], sum[r]);
    }
  }
};

}  // namespace nanochat::ops::cuda
