#include "core/numpy_random.h"

#include <array>
#include <bit>
#include <cstddef>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <utility>

namespace nanochat {
namespace {

__extension__ using Uint128 = unsigned __int128;  // g++ and clang have it, C++ does not

// numpy.random.SeedSequence(seed).generate_state(4, uint64); constants as in NumPy's bit_generator.pyx.
std::array<std::uint64_t, 4> seed_words(std::uint64_t seed) {
  constexpr std::uint32_t kMixLeft = 0xca01f9dd, kMixRight = 0x4973f715;
  const auto hasher = [](std::uint32_t initial, std::uint32_t multiplier) {
    return [constant = initial, multiplier](std::uint32_t value) mutable {
      value ^= constant;
      constant *= multiplier;
      value *= constant;
      return value ^ (value >> 16);
    };
  };
  auto absorb = hasher(0x43b0d7e5, 0x931e8875);
  std::array<std::uint32_t, 4> pool{};
  pool[0] = absorb(static_cast<std::uint32_t>(seed));
  pool[1] = absorb(static_cast<std::uint32_t>(seed >> 32));
  pool[2] = absorb(0);
  pool[3] = absorb(0);
  for (std::size_t source = 0; source < pool.size(); ++source) {
    for (std::size_t target = 0; target < pool.size(); ++target) {
      if (source == target) continue;
      const std::uint32_t mixed = kMixLeft * pool[target] - kMixRight * absorb(pool[source]);
      pool[target] = mixed ^ (mixed >> 16);
    }
  }
  auto squeeze = hasher(0x8b51f9dd, 0x58f38ded);
  std::array<std::uint64_t, 4> words{};
  for (std::size_t i = 0; i < 2 * words.size(); ++i) {
    words[i / 2] |= static_cast<std::uint64_t>(squeeze(pool[i % pool.size()])) << (32 * (i % 2));
  }
  return words;
}

class Pcg64 {
 public:
  explicit Pcg64(std::uint64_t seed) {
    const std::array<std::uint64_t, 4> words = seed_words(seed);
    increment_ = (join(words[2], words[3]) << 1) | 1;
    step();
    state_ += join(words[0], words[1]);
    step();
  }

  // Half of a draw of 64 bits: the low half, then the high one.
  std::uint32_t next32() {
    if (kept_) return *std::exchange(kept_, std::nullopt);
    step();
    const auto high = static_cast<std::uint64_t>(state_ >> 64), low = static_cast<std::uint64_t>(state_);
    const std::uint64_t bits = std::rotr(high ^ low, static_cast<int>(high >> 58));
    kept_ = static_cast<std::uint32_t>(bits >> 32);
    return static_cast<std::uint32_t>(bits);
  }

 private:
  static Uint128 join(std::uint64_t high, std::uint64_t low) { return (Uint128{high} << 64) | low; }
  void step() { state_ = state_ * join(0x2360ed051fc65da4, 0x4385df649fccf645) + increment_; }

  Uint128 state_ = 0, increment_ = 0;
  std::optional<std::uint32_t> kept_;
};

}  // namespace

std::vector<std::uint32_t> numpy_permutation(std::uint64_t n, std::uint64_t seed) {
  if (n > std::uint64_t{1} << 32) throw std::invalid_argument("numpy_permutation: more than 2^32 items");
  std::vector<std::uint32_t> items(n);
  std::iota(items.begin(), items.end(), 0U);
  Pcg64 generator(seed);
  for (std::uint64_t last = n; last-- > 1;) {
    const auto bound = static_cast<std::uint32_t>(last);
    const std::uint32_t mask = ~std::uint32_t{0} >> std::countl_zero(bound);
    std::uint32_t drawn = generator.next32() & mask;
    while (drawn > bound) drawn = generator.next32() & mask;
    std::swap(items[last], items[drawn]);
  }
  return items;
}

}  // namespace nanochat
