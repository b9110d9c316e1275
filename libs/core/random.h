#pragma once
// Seeded random numbers that are the same on every machine and with every compiler, unlike the standard
// library's distributions. Not thread-safe: use a separate stream for each thread (derive_seed).

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <string>
#include <utility>
#include <vector>

namespace nanochat {

// xoshiro256** (Blackman & Vigna 2018), seeded through SplitMix64. The state can be saved and restored.
class Rng {
 public:
  explicit Rng(std::uint64_t seed = 0);
  std::uint64_t next();                        // 64 uniform bits
  double uniform();                            // [0, 1), 53 bits
  std::uint64_t below(std::uint64_t n);        // [0, n), unbiased; n > 0
  std::int64_t between(std::int64_t low, std::int64_t high);  // inclusive
  double normal();                             // mean 0, variance 1 (Box-Muller, no cached half)
  template <class T>
  void shuffle(std::vector<T>& items) {        // Fisher-Yates from the end
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }
  template <class T>
  const T& choose(const std::vector<T>& items) {
    return items[below(items.size())];
  }

  std::array<std::uint64_t, 4> state() const { return state_; }
  void set_state(const std::array<std::uint64_t, 4>& state) { state_ = state; }

 private:
  std::array<std::uint64_t, 4> state_;
};

// A seed for an independent stream, mixed from a seed and a label. Streams do not depend on the order of their use.
std::uint64_t derive_seed(std::uint64_t seed, std::string_view label);

// CPython's random.Random(seed): MT19937 seeded by init_by_array of the absolute integer, exact in every draw.
// The reference's evaluation draws few-shot examples with it, so scores are comparable only with the same draws.
class PythonRandom {
 public:
  explicit PythonRandom(std::uint64_t seed);
  std::uint32_t bits32();                          // genrand_uint32
  double random();                                 // [0, 1)
  std::uint64_t getrandbits(int k);                // 0 < k <= 64
  std::uint64_t randbelow(std::uint64_t n);        // _randbelow_with_getrandbits; n > 0
  std::vector<std::size_t> sample(std::size_t population, std::size_t k);  // random.sample(range(population), k)
  template <class T>
  void shuffle(std::vector<T>& items) {            // random.shuffle
    for (std::size_t i = items.size(); i-- > 1;) std::swap(items[i], items[randbelow(i + 1)]);
  }

 private:
  std::array<std::uint32_t, 624> state_;
  std::size_t index_;
};

}  // namespace nanochat
