#pragma once
// The most likely token of a row of logits, and the first token whose logit is NaN or +Inf. They are found slice by slice of
// kSliceTokens tokens, where the logits are written (cross_entropy.cu) or in a pass of its own, for draws of tokens (sample.cu).

#include "device_code.cuh"

namespace nanochat::ops::cuda {

using u64 = unsigned long long;

inline constexpr int kSliceThreads = 256;  // of a block that has a slice
static_assert(sizeof(LogitExtremes) == 2 * sizeof(u64));

// Bits that compare as the numbers do, with one zero.
__device__ inline u32 ordered(float x) {
  const u32 bits = __float_as_uint(__fadd_rn(x, 0.0F));
  return bits ^ ((bits & 0x80000000U) != 0 ? 0xffffffffU : 0x80000000U);
}

// A token and its number as one word: the largest word has the largest number, and among those the lowest id.
struct Extreme {
  float value;
  int id;
};
__device__ inline u64 packed(float value, int id) {
  return static_cast<u64>(ordered(value)) << 32 | (0xffffffffU - static_cast<u32>(id));
}
__device__ inline Extreme unpacked(u64 word) {
  const u32 key = static_cast<u32>(word >> 32);
  const u32 bits = (key & 0x80000000U) != 0 ? key ^ 0x80000000U : ~key;
  return {__uint_as_float(bits), static_cast<int>(0xffffffffU - static_cast<u32>(word))};
}
constexpr u64 kNothing = 0;

// The largest word of a warp, for all its lanes.
__device__ inline u64 warp_largest(u64 word) {
  const u32 high = static_cast<u32>(word >> 32), highest = __reduce_max_sync(0xffffffffU, high);
  const u32 low = high == highest ? static_cast<u32>(word) : 0U;
  return static_cast<u64>(highest) << 32 | __reduce_max_sync(0xffffffffU, low);
}

// What one thread has seen of a slice. Its tokens come in the order of their ids.
class SliceExtremes {
 public:
  __device__ void see(int token, float logit) {
    if (logit > best_) {
      best_ = logit;
      id_ = token;
    }
    if (!(logit < INFINITY) && bad_ < 0) bad_ = token;
  }
  // Stores the extremes of all threads of the block: kNothing if no logit is finite, or if none is NaN or +Inf.
  __device__ void store(LogitExtremes* to) const {
    __shared__ u64 words[2][kSliceThreads / 32];
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const u64 most = warp_largest(id_ >= 0 ? packed(best_, id_) : kNothing);
    const u64 bad = warp_largest(bad_ >= 0 ? packed(0.0F, bad_) : kNothing);
    if (lane == 0) {
      words[0][warp] = most;
      words[1][warp] = bad;
    }
    __syncthreads();
    if (warp > 0) return;
    constexpr int kWarps = kSliceThreads / 32;
    const u64 all = warp_largest(words[0][lane % kWarps]), all_bad = warp_largest(words[1][lane % kWarps]);
    if (lane == 0) *to = {all, all_bad};
  }

 private:
  float best_ = -INFINITY;
  int id_ = -1, bad_ = -1;
};

// Of the whole row, from those of its slices, for all threads of a warp.
__device__ inline LogitExtremes row_extremes(const LogitExtremes* slices, int count) {
  u64 most = kNothing, bad = kNothing;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < count; i += 32) {
    const LogitExtremes slice = slices[i];
    most = max(most, static_cast<u64>(slice.most));
    bad = max(bad, static_cast<u64>(slice.bad));
  }
  return {warp_largest(most), warp_largest(bad)};
}

}  // namespace nanochat::ops::cuda
