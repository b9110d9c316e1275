// Draws of tokens. Weights are the same numbers, bit for bit, as ops/sample.cpp has on a CPU, and what is decided by comparing
// them is decided alike; sums are taken in double, in an order of their own.
//
// What takes a pass over the whole vocabulary is done by many blocks of threads for each row: the most likely token is found
// where the logits are written (logit_extremes.cuh), and sum_kernel() sums and compares weights by runs of kRunTokens tokens.
// Then one block for each row draws. For a draw without a cut it has the sums. For top-k and top-p it looks at those runs alone
// whose largest weight is among the largest: the tokens that are kept are in them, unless the distribution is very flat.
//
// Rows whose scores are not their logits (penalties, bias, constraints) and very flat ones take the long way: passes of one
// block. There, the vocabulary is not sorted, either: the cut is found digit by digit of a token's weight (radix selection),
// from counts and sums of the tokens that share the digits before.

#include "logit_extremes.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kRun = kRunTokens;
constexpr int kDigits = 4096;  // values of a digit
constexpr int kSumThreads = 256;  // of a block of sum_kernel()
constexpr int kCandidates = 512;  // most tokens among which a cut is found without a pass over all
constexpr int kMassCandidates = 192;  // least number of them for top-p alone
constexpr float kInfinity = INFINITY;
constexpr u32 kSeen = 0x80000000U;  // a count's mark of a token that the repetition penalty applies to

// The same bits as exp_fast() of cpu/kernels_impl.inc, where products that are added to are fused.
__device__ inline float exp_fast(float x) {
  x = x < -87.0F ? -87.0F : x;
  x = x > 88.0F ? 88.0F : x;
  const float shifted = __fmaf_rn(x, 1.44269504088896341F, 12582912.0F);
  const float n = __fsub_rn(shifted, 12582912.0F);
  const float r = __fmaf_rn(n, 2.12194440e-4F, __fmaf_rn(-n, 0.693359375F, x));
  float p = 1.9875691500e-4F;
  p = __fmaf_rn(p, r, 1.3981999507e-3F);
  p = __fmaf_rn(p, r, 8.3334519073e-3F);
  p = __fmaf_rn(p, r, 4.1665795894e-2F);
  p = __fmaf_rn(p, r, 1.6666665459e-1F);
  p = __fmaf_rn(p, r, 5.0000001201e-1F);
  p = __fadd_rn(__fmaf_rn(__fmul_rn(p, r), r, r), 1.0F);
  return __fmul_rn(p, __uint_as_float((__float_as_uint(shifted) + 127U) << 23));
}
__device__ inline float weight_of(float score, float best, float inverse_temperature) {
  const float exponent = __fmul_rn(__fsub_rn(score, best), inverse_temperature);
  return exponent < -87.0F ? 0.0F : exp_fast(exponent);
}

struct Shared {
  u64 words[kWarps];
  double sums[kWarps];
  int found_thread, last_thread;
  int digit, digit_count;
  double above_count, above_mass, rest;
  int position;
  u32 listed;
};

struct Sum {
  __device__ double operator()(double a, double b) const { return a + b; }
};
struct Largest {
  __device__ u64 operator()(u64 a, u64 b) const { return a > b ? a : b; }
};

// Of all threads, for all threads; always in the same order.
template <class T, class Operation>
__device__ inline T reduce(T x, T (&scratch)[kWarps], const Operation& operation) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = operation(x, __shfl_xor_sync(0xffffffffU, x, offset));
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[threadIdx.x % 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = operation(x, __shfl_xor_sync(0xffffffffU, x, offset));
  return x;
}

// The sum of the values of the threads up to this one.
__device__ inline double inclusive_sum(double x, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffU, x, offset);
    if (lane >= offset) x += other;
  }
  __syncthreads();
  if (lane == 31) shared.sums[warp] = x;
  __syncthreads();
  double before = shared.sums[lane];
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const double other = __shfl_up_sync(0xffffffffU, before, offset);
    if (lane >= offset) before += other;
  }
  const double all_before = __shfl_sync(0xffffffffU, before, max(warp - 1, 0));
  return warp == 0 ? x : x + all_before;
}

// The first thread that says so, or -1.
__device__ inline int first_thread(bool yes, Shared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) shared.found_thread = kThreads;
  __syncthreads();
  if (yes) atomicMin(&shared.found_thread, static_cast<int>(threadIdx.x));
  __syncthreads();
  return shared.found_thread == kThreads ? -1 : shared.found_thread;
}
__device__ inline int last_thread(bool yes, Shared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) shared.last_thread = -1;
  __syncthreads();
  if (yes) atomicMax(&shared.last_thread, static_cast<int>(threadIdx.x));
  __syncthreads();
  return shared.last_thread;
}

// body(token, value of the token) for every token, once; 16 bytes are read at a time where the row allows it. A thread reads
// the values of several packs before it calls body for the first, which may write values of the same tokens.
template <class Body>
__device__ inline void for_each_value(const float* values, int vocab, const Body& body) {
  constexpr int kAtOnce = 4;
  const int packs = reinterpret_cast<std::uintptr_t>(values) % sizeof(float4) == 0 ? vocab / 4 : 0;
  for (int first = static_cast<int>(threadIdx.x); first < packs; first += kAtOnce * kThreads) {
    float4 pack[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) pack[j] = reinterpret_cast<const float4*>(values)[min(first + j * kThreads, packs - 1)];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = first + j * kThreads;
      if (i >= packs) break;
      body(4 * i, pack[j].x);
      body(4 * i + 1, pack[j].y);
      body(4 * i + 2, pack[j].z);
      body(4 * i + 3, pack[j].w);
    }
  }
  for (int i = 4 * packs + static_cast<int>(threadIdx.x); i < vocab; i += kThreads) body(i, values[i]);
}

// ------------------------------------------------------------------------------------------------- what a row wants

__device__ inline bool is_adjusted(const SampleRow& row) {
  return row.scratch_row >= 0 || row.bias.count > 0 || row.allowed >= 0 || row.forbidden.count > 0;
}
__device__ inline bool cuts_count(const SampleRow& row, int vocab) { return row.top_k > 0 && row.top_k < vocab; }
__device__ inline bool cuts_mass(const SampleRow& row) { return row.top_p < 1.0; }
// Weights that a draw without top-k and top-p adds up.
__device__ inline double kept_weight(const SampleRow& row, float weight) {
  const double mass = weight;
  return mass >= row.min_p ? mass : 0.0;
}

// What sum_kernel() finds out about a row.
struct Wanted {
  bool draw_sums;  // sums of the weights of the draw; where top-p cuts, of those that min-p would drop, too
  bool peaks;  // the largest weights
  bool log_sums;  // sums of the weights of the unmodified distribution, unless draw_sums are
  bool draw_sums_are_log_sums;
  __device__ bool any() const { return draw_sums || peaks || log_sums; }
};
__device__ inline Wanted wanted_of(const SampleRow& row, int vocab) {
  const bool draws = row.greedy == 0 && !is_adjusted(row), by_count = cuts_count(row, vocab), by_mass = cuts_mass(row);
  Wanted wanted = {};
  wanted.draw_sums = draws && !by_count;
  wanted.peaks = draws && (by_count || by_mass);
  wanted.draw_sums_are_log_sums = wanted.draw_sums && row.inverse_temperature == 1.0F && (by_mass || row.min_p == 0.0);
  wanted.log_sums = (row.logprob != 0 || row.top_logprobs > 0) && !wanted.draw_sums_are_log_sums;
  return wanted;
}

// The neighbouring tokens from `token` on that one lane has; -Inf, whose weight is 0, behind the vocabulary.
__device__ inline void load_scores(const float* values, int vocab, int token, bool packed_rows, float (&scores)[4]) {
  if (packed_rows && token + 4 <= vocab) {
    load<4>(values + token, scores);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) scores[j] = token + j < vocab ? values[token + j] : -kInfinity;
}
__device__ inline bool has_packs(const float* values) { return reinterpret_cast<std::uintptr_t>(values) % sizeof(float4) == 0; }
__device__ inline double warp_total(double x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffU, x, offset);
  return x;
}

// ------------------------------------------------------------------------------------------- in the order of the ids

// Runs of kRun tokens and what they hold: sums of value(token, values[token]) >= 0 in `runs`, one per run.
template <class Value>
__device__ inline void sum_runs(const float* values, int vocab, double* runs, const Value& value) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const bool packed = has_packs(values);
  static_assert(kRun == 4 * 32);
  __syncthreads();  // whoever used this memory before is done
#pragma unroll 4
  for (int run = static_cast<int>(threadIdx.x / 32); run * kRun < vocab; run += kWarps) {
    const int token = run * kRun + 4 * lane;
    double sum = 0.0;
    if (packed && token + 4 <= vocab) {
      const float4 pack = *reinterpret_cast<const float4*>(values + token);
      sum = value(token, pack.x) + value(token + 1, pack.y) + (value(token + 2, pack.z) + value(token + 3, pack.w));
    } else {
      for (int i = token; i < min(token + 4, vocab); ++i) sum += value(i, values[i]);
    }
    sum = warp_total(sum);
    if (lane == 0) runs[run] = sum;
  }
  __syncthreads();
}

__device__ inline double total_of_runs(int vocab, const double* runs, Shared& shared) {
  double sum = 0.0;
  for (int run = static_cast<int>(threadIdx.x); run * kRun < vocab; run += kThreads) sum += runs[run];
  return reduce(sum, shared.sums, Sum());
}

// The first token at which the sum, in the order of the ids, is above `mark`; where rounding keeps it below, the last one
// that has a value.
template <class Value>
__device__ inline int find_token(const float* values, int vocab, const double* runs, double mark, Shared& shared,
                                 const Value& value) {
  const int count = (vocab + kRun - 1) / kRun, each = (count + kThreads - 1) / kThreads;
  const int begin = min(count, static_cast<int>(threadIdx.x) * each), end = min(count, begin + each);
  double own = 0.0;
  for (int run = begin; run < end; ++run) own += runs[run];
  const double up_to = inclusive_sum(own, shared);
  int chosen = first_thread(own > 0.0 && up_to > mark, shared);
  if (chosen < 0) chosen = last_thread(own > 0.0, shared);
  if (static_cast<int>(threadIdx.x) == chosen) {
    double sum = up_to - own, before = sum;
    int found = begin;
    for (int run = begin; run < end; ++run) {
      if (runs[run] <= 0.0) continue;
      found = run;
      before = sum;
      sum += runs[run];
      if (sum > mark) break;
    }
    shared.position = found;
    shared.rest = mark - before;
  }
  __syncthreads();
  const int run = shared.position;
  const double rest = shared.rest;
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    double sum = 0.0;
    int token = -1, last = -1;
    for (int j = 0; j < kRun / 32; ++j) {
      const int candidate = run * kRun + 32 * j + lane;
      const double x = candidate < vocab ? value(candidate, values[candidate]) : 0.0;
      double up = x;
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const double other = __shfl_up_sync(0xffffffffU, up, offset);
        if (lane >= offset) up += other;
      }
      const u32 above = __ballot_sync(0xffffffffU, x > 0.0 && sum + up > rest), some = __ballot_sync(0xffffffffU, x > 0.0);
      if (token < 0 && above != 0) token = run * kRun + 32 * j + __ffs(static_cast<int>(above)) - 1;
      if (some != 0) last = run * kRun + 32 * j + 31 - __clz(static_cast<int>(some));
      sum += __shfl_sync(0xffffffffU, up, 31);
    }
    if (lane == 0) shared.position = token >= 0 ? token : last;
  }
  __syncthreads();
  return shared.position;
}

// ----------------------------------------------------------------------------------------------------------- selection

// The tokens above a cut: those with a larger key, and of those with this key the ones up to an id.
struct Cut {
  u32 key = 0;
  int ties = 0x7fffffff;  // of that key that are kept
  int last_id = 0x7fffffff;  // of them
  __device__ bool keeps(u32 other, int id) const { return other > key || (other == key && id <= last_id); }
};

// A key has three digits, of 12, 12 and 8 bits. Where masses are asked for, it is a float's bits, shifted left twice, and
// numbers with the same first digit have one exponent: a sum of them is a sum of integers. Parts of 9 bits are added up
// apart, so that no sum overflows.
struct Bins {
  u32* counts;  // (kDigits)
  u32* low;
  u32* high;
};
struct Digit {
  int shift, bits;
};
__device__ inline Digit digit_of(int level) { return level == 0 ? Digit{20, 12} : level == 1 ? Digit{8, 12} : Digit{0, 8}; }

template <bool kMass, class KeyOf>
__device__ inline void count_digits(const float* values, int vocab, int level, u32 prefix, const Bins& bins,
                                    const KeyOf& key_of) {
  const Digit digit = digit_of(level);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += kThreads) {
    bins.counts[i] = 0;
    if constexpr (kMass) bins.low[i] = bins.high[i] = 0;
  }
  __syncthreads();
  for_each_value(values, vocab, [&](int, float value) {
    const u32 key = key_of(value);
    if (key == 0 || (level > 0 && (key ^ prefix) >> (digit.shift + digit.bits) != 0)) return;
    const u32 bin = (key >> digit.shift) & ((1U << digit.bits) - 1);
    atomicAdd(bins.counts + bin, 1U);
    if constexpr (kMass) {
      const u32 rest = (key & ((1U << digit.shift) - 1)) >> 2;
      if (level < 2) atomicAdd(bins.low + bin, rest & 0x1ffU);
      if (level == 0) atomicAdd(bins.high + bin, rest >> 9);
    }
  });
  __syncthreads();
}

template <bool kMass>
__device__ inline double mass_of_bin(const Bins& bins, int bin, u32 bin_key) {
  if constexpr (!kMass) return 0.0;
  const u32 bits = bin_key >> 2;
  const double count = bins.counts[bin];
  const double sum = count * static_cast<double>((bits & 0x7fffffU) | 0x800000U) + static_cast<double>(bins.low[bin]) +
                     512.0 * static_cast<double>(bins.high[bin]);
  return scalbn(sum, static_cast<int>(bits >> 23) - 150);
}

// The cut that keeps the tokens whose values have the largest keys: `count` of them, or as many as have the mass that
// wanted(mass of all) says. Keys of 0 do not count. `limit`: a cut that has been made; its tokens alone are looked at.
struct Selected {
  Cut cut;
  double mass = 0.0;  // of what is kept
  int available = 0;  // tokens with the key of the cut
};
template <bool kMass, class KeyOf, class Wanted>
__device__ inline Selected select(const float* values, int vocab, int count, const Cut& limit, const Bins& bins, Shared& shared,
                                  const KeyOf& key_of, const Wanted& wanted_mass) {
  const bool by_count = count > 0;
  u32 prefix = 0;
  double above_count = 0.0, above_mass = 0.0, wanted = static_cast<double>(count);
  int available = 0;
  for (int level = 0; level < 3; ++level) {
    const Digit digit = digit_of(level);
    count_digits<kMass>(values, vocab, level, prefix, bins, [&](float value) {
      const u32 key = key_of(value);
      return key >= limit.key ? key : 0;
    });
    // A thread has four neighbouring digits, the first thread the largest.
    constexpr int kEach = kDigits / kThreads;
    const int highest = kDigits - 1 - kEach * static_cast<int>(threadIdx.x);
    const auto key_of_bin = [&](int bin) { return prefix | (static_cast<u32>(bin) << digit.shift); };
    double own_count = 0.0, own_mass = 0.0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int bin = highest - j;
      if (bin >= 1 << digit.bits || bins.counts[bin] == 0) continue;
      own_count += bins.counts[bin];
      own_mass += mass_of_bin<kMass>(bins, bin, key_of_bin(bin));
    }
    const double counts = inclusive_sum(own_count, shared);
    const double masses = kMass ? inclusive_sum(own_mass, shared) : 0.0;
    if (level == 0) {
      if (threadIdx.x == kThreads - 1) {
        shared.above_count = counts;
        shared.above_mass = masses;
      }
      __syncthreads();
      const double all_count = shared.above_count, all_mass = shared.above_mass;
      if (by_count && all_count <= wanted) return {limit, all_mass, 0};  // nothing to cut
      if (!by_count) wanted = wanted_mass(all_mass);
    }
    const double reached = by_count ? above_count + counts : above_mass + masses;
    int chosen = first_thread(own_count > 0.0 && reached >= wanted, shared);
    if (chosen < 0) chosen = last_thread(own_count > 0.0, shared);
    if (static_cast<int>(threadIdx.x) == chosen) {
      double n = above_count + counts - own_count, m = above_mass + masses - own_mass;
      int found = 0;
      double found_n = n, found_m = m;
      for (int j = 0; j < kEach; ++j) {
        const int bin = highest - j;
        if (bin >= 1 << digit.bits || bins.counts[bin] == 0) continue;
        found = bin;
        found_n = n;
        found_m = m;
        n += bins.counts[bin];
        m += mass_of_bin<kMass>(bins, bin, key_of_bin(bin));
        if ((by_count ? n : m) >= wanted) break;
      }
      shared.digit = found;
      shared.digit_count = static_cast<int>(bins.counts[found]);
      shared.above_count = found_n;
      shared.above_mass = found_m;
    }
    __syncthreads();
    prefix = key_of_bin(shared.digit);
    available = shared.digit_count;
    above_count = shared.above_count;
    above_mass = shared.above_mass;
  }
  Selected selected;
  selected.cut.key = prefix;
  selected.available = available;
  const int most = prefix == limit.key ? min(available, limit.ties) : available;
  int ties = by_count ? static_cast<int>(wanted - above_count) : 1;
  if constexpr (kMass) {
    const double each = static_cast<double>(__uint_as_float(prefix >> 2));
    if (!by_count) {
      // From just below where the sum reaches what is wanted.
      const double missing = (wanted - above_mass) / each;
      ties = max(1, static_cast<int>(min(missing, static_cast<double>(most))) - 1);
      while (ties < most && above_mass + ties * each < wanted) ++ties;
    }
    selected.mass = above_mass + min(ties, most) * each;
  }
  selected.cut.ties = min(ties, most);
  return selected;
}

// Fills in last_id.
template <class KeyOf>
__device__ inline void find_last_id(const float* values, int vocab, Selected& selected, double* runs, Shared& shared,
                                    const KeyOf& key_of) {
  Cut& cut = selected.cut;
  cut.last_id = 0x7fffffff;
  if (cut.ties >= selected.available) return;
  const auto tied = [&](int, float value) { return key_of(value) == cut.key ? 1.0 : 0.0; };
  sum_runs(values, vocab, runs, tied);
  cut.last_id = find_token(values, vocab, runs, static_cast<double>(cut.ties) - 0.5, shared, tied);
}

// --------------------------------------------------------------------------------------------------------------- a row

class Row {
 public:
  __device__ Row(const SampleArguments& arguments, const SampleRow& row, int index, Shared& shared, u32* scratch)
      : a_(arguments), row_(row), logits_(arguments.logits + static_cast<i64>(row.logits) * arguments.vocab),
        weights_(arguments.weights + static_cast<i64>(index) * arguments.vocab), index_(index), shared_(shared),
        bins_{scratch, scratch + kDigits, scratch + 2 * kDigits}, runs_(reinterpret_cast<double*>(scratch)) {}

  __device__ void sample() {
    SampledRow result = {-1, SampleStatus::kOk, 0.0F, 0, 0.0};
    const Extreme most_likely = check_logits(result);
    if (result.status == SampleStatus::kOk) {
      const Extreme best = adjusted() ? adjust() : most_likely;
      if (best.value == -kInfinity) {
        result.status = SampleStatus::kNoneAllowed;
      } else {
        result.id = row_.greedy != 0 ? best.id : draw(best.value);
        report(most_likely.value, result);
      }
    }
    if (threadIdx.x != 0) return;
    a_.results[index_] = result;
    a_.tokens[index_] = result.status == SampleStatus::kOk ? result.id : -1;
  }

 private:
  __device__ bool penalised() const { return row_.scratch_row >= 0; }
  __device__ bool adjusted() const { return is_adjusted(row_); }
  __device__ bool known(int id) const { return id >= 0 && id < a_.vocab; }

  __device__ Extreme check_logits(SampledRow& result) {
    const int slices = static_cast<int>(logit_slices(a_.vocab));
    const LogitExtremes found = row_extremes(a_.extremes + static_cast<i64>(row_.logits) * slices, slices);
    if (found.bad != kNothing) {
      result.id = unpacked(found.bad).id;
      result.status = SampleStatus::kNotFinite;
      result.bad_logit = logits_[result.id];
    } else if (found.most == kNothing) {
      result.status = SampleStatus::kNoneFinite;
    }
    return unpacked(found.most);
  }

  // Scores of all tokens, to weights_; returns the best.
  __device__ Extreme adjust() {
    u32* const counts = penalised() ? a_.counts + static_cast<i64>(row_.scratch_row) * a_.vocab : nullptr;
    const auto for_each_listed = [&](const SampleList& list, const auto& body) {
      for (int i = static_cast<int>(threadIdx.x); i < list.count; i += kThreads) {
        const int id = a_.ids[list.begin + i];
        if (known(id)) body(id);
      }
    };
    if (counts != nullptr) {
      for_each_listed(row_.seen, [&](int id) { atomicOr(counts + id, kSeen); });
      for_each_listed(row_.generated, [&](int id) { atomicAdd(counts + id, 1U); });
      if (row_.last_input >= 0 && threadIdx.x == 0 && known(a_.inputs[row_.last_input])) {
        u32* const count = counts + a_.inputs[row_.last_input];
        if (row_.repetition_penalty != 1.0F) atomicOr(count, kSeen);
        if (row_.frequency_penalty != 0.0 || row_.presence_penalty != 0.0) atomicAdd(count, 1U);
      }
      __syncthreads();
    }
    const u32* const mask = row_.allowed >= 0 ? a_.masks + row_.allowed : nullptr;
    for_each_value(logits_, a_.vocab, [&](int token, float logit) {
      float score = logit;
      if (counts != nullptr) {
        const u32 count = __ldcg(counts + token);
        if ((count & kSeen) != 0) {
          score = logit > 0.0F ? __fdiv_rn(logit, row_.repetition_penalty) : __fmul_rn(logit, row_.repetition_penalty);
        }
        if ((count & ~kSeen) != 0) {
          const double times = count & ~kSeen;
          score = __fsub_rn(score,
                            __double2float_rn(__dadd_rn(row_.presence_penalty, __dmul_rn(row_.frequency_penalty, times))));
        }
      }
      if (mask != nullptr && (mask[token / 32] >> (token % 32) & 1U) == 0) score = -kInfinity;
      weights_[token] = score;
    });
    __syncthreads();
    add_bias();
    for_each_listed(row_.forbidden, [&](int id) { weights_[id] = -kInfinity; });
    __syncthreads();
    u64 most = kNothing;
    for_each_value(weights_, a_.vocab, [&](int token, float score) { most = Largest()(most, packed(score, token)); });
    return unpacked(reduce(most, shared_.words, Largest()));
  }

  // Of ids that are listed twice, one thread adds all values, in their order.
  __device__ void add_bias() {
    const std::int32_t* const ids = a_.bias_ids + row_.bias.begin;
    const float* const values = a_.bias_values + row_.bias.begin;
    for (int i = static_cast<int>(threadIdx.x); i < row_.bias.count; i += kThreads) {
      const int id = ids[i];
      bool first = known(id);
      for (int j = 0; j < i && first; ++j) first = ids[j] != id;
      if (!first) continue;
      float score = weights_[id];
      for (int j = i; j < row_.bias.count; ++j) {
        if (ids[j] == id) score = __fadd_rn(score, values[j]);
      }
      weights_[id] = score;
    }
    __syncthreads();
  }

  __device__ int draw(float best) {
    const float* const scores = adjusted() ? weights_ : logits_;
    const bool by_count = cuts_count(row_, a_.vocab), by_mass = cuts_mass(row_);
    const Wanted wanted = wanted_of(row_, a_.vocab);
    const double* const summed = a_.draw_sums + static_cast<i64>(index_) * logit_runs(a_.vocab);
    const double total = wanted.draw_sums ? total_of_runs(a_.vocab, summed, shared_) : 0.0;
    if (wanted.draw_sums_are_log_sums) total_ = total;
    if (!by_count && !by_mass) {
      const auto kept = [&](int, float score) { return kept_weight(row_, weight_of(score, best, row_.inverse_temperature)); };
      if (wanted.draw_sums) return find_token(scores, a_.vocab, summed, row_.uniform * total, shared_, kept);
      sum_runs(scores, a_.vocab, runs_, kept);
      return find_token(scores, a_.vocab, runs_, row_.uniform * total_of_runs(a_.vocab, runs_, shared_), shared_, kept);
    }
    if (wanted.peaks) {
      const int id = draw_from_peaks(best, by_mass ? total : 0.0);
      if (id >= 0) return id;
    }
    __syncthreads();
    for_each_value(scores, a_.vocab,
                   [&](int token, float score) { weights_[token] = weight_of(score, best, row_.inverse_temperature); });
    __syncthreads();
    const auto key_of = [](float weight) { return __float_as_uint(weight) << 2; };
    Selected selected;
    if (by_count) {
      const auto no_mass = [](double mass) { return mass; };
      selected = by_mass ? select<true>(weights_, a_.vocab, row_.top_k, {}, bins_, shared_, key_of, no_mass)
                         : select<false>(weights_, a_.vocab, row_.top_k, {}, bins_, shared_, key_of, no_mass);
    }
    if (by_mass) {
      const Cut top_k = selected.cut;
      const double mass_of_top_k = selected.mass;
      selected = select<true>(weights_, a_.vocab, 0, top_k, bins_, shared_, key_of, [&](double mass) {
        return row_.top_p * (top_k.key == 0 ? mass : mass_of_top_k);  // ties beyond the cut are counted in `mass`
      });
    }
    find_last_id(weights_, a_.vocab, selected, runs_, shared_, key_of);
    const Cut cut = selected.cut;
    const auto kept = [&](int token, float value) { return cut.keeps(key_of(value), token) ? kept_weight(row_, value) : 0.0; };
    sum_runs(weights_, a_.vocab, runs_, kept);
    const double mark = row_.uniform * total_of_runs(a_.vocab, runs_, shared_);
    return find_token(weights_, a_.vocab, runs_, mark, shared_, kept);
  }

  // A draw with top-k or top-p among the tokens whose weights are at least those of the largest peaks; `total`: the sum of all
  // weights, where top-k does not cut. -1: there are too many of them, or more than those are kept.
  __device__ int draw_from_peaks(float best, double total) {
    const bool by_count = cuts_count(row_, a_.vocab);
    const int runs = static_cast<int>(logit_runs(a_.vocab)), thread = static_cast<int>(threadIdx.x);
    const int least = by_count ? row_.top_k : min(kMassCandidates, runs);
    if (runs > kThreads || least > min(runs, kCandidates)) return -1;
    auto* const listed = reinterpret_cast<u64*>(bins_.counts);  // (kCandidates): weight and id, the largest word comes first
    u32* const weights = bins_.low;  // (kCandidates): of those in order, then by id
    u32* const ids = bins_.low + kCandidates;
    u32* const ids_in_order = bins_.low + 2 * kCandidates;
    const float* const peaks = a_.peaks + static_cast<i64>(index_) * runs;

    // Nearly the largest number, as a float's bits, that so many peaks reach: at least so many tokens do, too.
    const u32 peak = thread < runs ? __float_as_uint(peaks[thread]) : 0;
    u32 threshold = 0;
    for (u32 bit = 1U << 29; bit >= 1U << 12; bit /= 2) {  // weights are at most 1, whose highest bit is that
      if (__syncthreads_count(peak >= (threshold | bit) ? 1 : 0) >= least) threshold |= bit;
    }
    if (threshold == 0) return -1;
    if (thread == 0) shared_.listed = 0;
    __syncthreads();
    const bool packs = has_packs(logits_);
    for (int run = thread / 32; run < runs; run += kWarps) {
      if (__float_as_uint(peaks[run]) < threshold) continue;
      const int token = run * kRun + 4 * (thread % 32);
      float scores[4];
      load_scores(logits_, a_.vocab, token, packs, scores);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const u32 weight = __float_as_uint(weight_of(scores[j], best, row_.inverse_temperature));
        if (weight < threshold) continue;
        const u32 place = atomicAdd(&shared_.listed, 1U);
        if (place < kCandidates) listed[place] = static_cast<u64>(weight) << 32 | (0xffffffffU - static_cast<u32>(token + j));
      }
    }
    __syncthreads();
    const int count = static_cast<int>(shared_.listed);
    if (count > kCandidates) return -1;
    if (thread < count) {
      const u64 word = listed[thread];
      int place = 0;
      for (int i = 0; i < count; ++i) place += listed[i] > word ? 1 : 0;
      weights[place] = static_cast<u32>(word >> 32);
      ids[place] = 0xffffffffU - static_cast<u32>(word);
    }
    __syncthreads();

    int kept = by_count ? min(count, row_.top_k) : count;
    if (cuts_mass(row_)) {
      const double mass = inclusive_sum(thread < kept ? static_cast<double>(__uint_as_float(weights[thread])) : 0.0, shared_);
      if (by_count) {
        __syncthreads();
        if (thread == kThreads - 1) shared_.rest = mass;
        __syncthreads();
        total = shared_.rest;
      }
      const int before = __syncthreads_count(thread < kept && mass < row_.top_p * total ? 1 : 0);
      if (!by_count && before >= kept) return -1;
      kept = min(kept, before + 1);
    }

    // Those, in the order of their ids.
    u32 weight = 0, id = 0;
    int place = 0;
    if (thread < kept) {
      weight = weights[thread];
      id = ids[thread];
      for (int i = 0; i < kept; ++i) place += ids[i] < id ? 1 : 0;
    }
    __syncthreads();
    if (thread < kept) {
      weights[place] = weight;
      ids_in_order[place] = id;
    }
    __syncthreads();
    const double own = thread < kept ? kept_weight(row_, __uint_as_float(weights[thread])) : 0.0;
    const double up_to = inclusive_sum(own, shared_);
    __syncthreads();
    if (thread == kThreads - 1) shared_.rest = up_to;
    __syncthreads();
    const double mark = row_.uniform * shared_.rest;
    int chosen = first_thread(own > 0.0 && up_to > mark, shared_);
    if (chosen < 0) chosen = last_thread(own > 0.0, shared_);
    return static_cast<int>(ids_in_order[chosen]);
  }

  __device__ void report(float most_likely, SampledRow& result) {
    const int top = min(row_.top_logprobs, a_.vocab);
    if (row_.logprob == 0 && top == 0) return;
    if (total_ < 0.0) total_ = total_of_runs(a_.vocab, a_.log_sums + static_cast<i64>(index_) * logit_runs(a_.vocab), shared_);
    const double log_sum = static_cast<double>(most_likely) + log(total_);
    if (row_.logprob != 0) result.logprob = static_cast<double>(logits_[result.id]) - log_sum;
    if (top == 0) return;
    const auto key_of = [](float logit) { return ordered(logit); };
    Selected selected;
    if (top < a_.vocab) {
      selected = select<false>(logits_, a_.vocab, top, {}, bins_, shared_, key_of, [](double mass) { return mass; });
      find_last_id(logits_, a_.vocab, selected, runs_, shared_, key_of);
    }
    u64* const listed = reinterpret_cast<u64*>(bins_.counts);  // (top)
    __syncthreads();
    if (threadIdx.x == 0) shared_.listed = 0;
    __syncthreads();
    for_each_value(logits_, a_.vocab, [&](int token, float logit) {
      if (!selected.cut.keeps(key_of(logit), token)) return;
      const u32 place = atomicAdd(&shared_.listed, 1U);
      if (place < static_cast<u32>(top)) listed[place] = packed(logit, token);
    });
    __syncthreads();
    const int count = min(top, static_cast<int>(shared_.listed));
    result.top_count = count;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
      int place = 0;
      for (int j = 0; j < count; ++j) place += listed[j] > listed[i] ? 1 : 0;
      const int id = unpacked(listed[i]).id;
      a_.top[static_cast<i64>(index_) * a_.top_stride + place] = {id, static_cast<double>(logits_[id]) - log_sum};
    }
  }

  const SampleArguments& a_;
  const SampleRow& row_;
  const float* logits_;
  float* weights_;
  int index_;
  Shared& shared_;
  Bins bins_;
  double total_ = -1.0;  // of the weights of the unmodified distribution, once that is known
  double* runs_;  // the memory of bins_: one of them is in use at a time
};

__global__ void __launch_bounds__(kThreads) sample_kernel(const __grid_constant__ SampleArguments arguments) {
  extern __shared__ __align__(16) unsigned char scratch[];
  __shared__ Shared shared;
  __shared__ SampleRow row;
  let_next_begin();
  wait_for_previous();
  if (threadIdx.x == 0) row = arguments.rows[blockIdx.x];
  __syncthreads();
  Row(arguments, row, static_cast<int>(blockIdx.x), shared, reinterpret_cast<u32*>(scratch)).sample();
}

// A block has a slice of a row of logits.
__global__ void __launch_bounds__(kSliceThreads) extremes_kernel(const __grid_constant__ SampleArguments a) {
  let_next_begin();
  wait_for_previous();
  const i64 row = a.rows[blockIdx.x].logits;
  const float* const logits = a.logits + row * a.vocab;
  SliceExtremes own;
#pragma unroll
  for (int first = 0; first < kSliceTokens; first += kSliceThreads) {
    const int token = static_cast<int>(blockIdx.y) * kSliceTokens + first + static_cast<int>(threadIdx.x);
    if (token < a.vocab) own.see(token, logits[token]);
  }
  own.store(a.extremes + row * gridDim.y + blockIdx.y);
}

// The blocks of a row share its runs; a warp has one at a time.
__global__ void __launch_bounds__(kSumThreads) sum_kernel(const __grid_constant__ SampleArguments a) {
  let_next_begin();
  wait_for_previous();
  const SampleRow& row = a.rows[blockIdx.x];
  const Wanted wanted = wanted_of(row, a.vocab);
  if (!wanted.any()) return;
  const int slices = static_cast<int>(logit_slices(a.vocab)), runs = static_cast<int>(logit_runs(a.vocab));
  const LogitExtremes extremes = row_extremes(a.extremes + static_cast<i64>(row.logits) * slices, slices);
  if (extremes.bad != kNothing || extremes.most == kNothing) return;  // there will be no draw
  const float best = unpacked(extremes.most).value, inverse_temperature = row.inverse_temperature;
  const float* const logits = a.logits + static_cast<i64>(row.logits) * a.vocab;
  const bool packs = has_packs(logits), all_mass = cuts_mass(row);
  const double min_p = row.min_p;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  constexpr int kWarpsOfBlock = kSumThreads / 32;
  const i64 to = static_cast<i64>(blockIdx.x) * runs;
#pragma unroll 2
  for (int run = static_cast<int>(blockIdx.y) * kWarpsOfBlock + static_cast<int>(threadIdx.x) / 32; run < runs;
       run += static_cast<int>(gridDim.y) * kWarpsOfBlock) {
    float scores[4];
    load_scores(logits, a.vocab, run * kRun + 4 * lane, packs, scores);
    if (wanted.draw_sums || wanted.peaks) {
      float weights[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) weights[j] = weight_of(scores[j], best, inverse_temperature);
      if (wanted.peaks) {
        const u32 peak = __reduce_max_sync(0xffffffffU, __float_as_uint(fmaxf(fmaxf(weights[0], weights[1]),
                                                                              fmaxf(weights[2], weights[3]))));
        if (lane == 0) a.peaks[to + run] = __uint_as_float(peak);
      }
      if (wanted.draw_sums) {
        double masses[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          masses[j] = weights[j];
          if (!all_mass && masses[j] < min_p) masses[j] = 0.0;
        }
        const double sum = warp_total(masses[0] + masses[1] + (masses[2] + masses[3]));
        if (lane == 0) a.draw_sums[to + run] = sum;
      }
    }
    if (wanted.log_sums) {
      double masses[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) masses[j] = weight_of(scores[j], best, 1.0F);
      const double sum = warp_total(masses[0] + masses[1] + (masses[2] + masses[3]));
      if (lane == 0) a.log_sums[to + run] = sum;
    }
  }
}

}  // namespace

void sample(const SampleArguments& arguments, Stream stream) {
  if (arguments.row_count == 0) return;
  constexpr std::size_t kBytes = 3 * kDigits * sizeof(u32);
  const i64 runs = logit_runs(arguments.vocab);
  if (runs > static_cast<i64>(kBytes / sizeof(double))) {
    throw std::runtime_error("the CUDA sampler does not take vocabularies of " + std::to_string(arguments.vocab));
  }
  const auto rows = static_cast<unsigned>(arguments.row_count);
  if (!arguments.has_extremes) {
    const dim3 grid(rows, static_cast<unsigned>(logit_slices(arguments.vocab)));
    launch(&extremes_kernel, grid, kSliceThreads, 0, stream, arguments);
  }
  if (arguments.sums) {
    // Enough blocks for all multiprocessors, and not more than have a run for each warp.
    constexpr i64 kRunsAtOnce = kSumThreads / 32;
    const i64 most = (runs + kRunsAtOnce - 1) / kRunsAtOnce, shared_by = (4 * multiprocessors() + rows - 1) / rows;
    const dim3 grid(rows, static_cast<unsigned>(shared_by < most ? shared_by : most));
    launch(&sum_kernel, grid, kSumThreads, 0, stream, arguments);
  }
  launch(&sample_kernel, rows, kThreads, kBytes, stream, arguments);
  check_launch("sample");
}

}  // namespace nanochat::ops::cuda
