#include "core/random.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <numeric>
#include <stdexcept>
#include <unordered_set>

namespace nanochat {
namespace {

// SplitMix64 (Steele, Lea & Flood 2014): its outputs over consecutive states are all different, so that no seed
// leaves xoshiro in the all-zero state.
std::uint64_t splitmix64(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// The high and low halves of a 64 x 64 bit product, by 32-bit limbs (C++ has no 128-bit type).
std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b, std::uint64_t& low) {
  const std::uint64_t a0 = a & 0xffffffff, a1 = a >> 32, b0 = b & 0xffffffff, b1 = b >> 32;
  const std::uint64_t p00 = a0 * b0, p01 = a0 * b1, p10 = a1 * b0, p11 = a1 * b1;
  const std::uint64_t middle = (p00 >> 32) + (p01 & 0xffffffff) + (p10 & 0xffffffff);
  low = (middle << 32) | (p00 & 0xffffffff);
  return p11 + (p01 >> 32) + (p10 >> 32) + (middle >> 32);
}

}  // namespace

Rng::Rng(std::uint64_t seed) {
  for (std::uint64_t& word : state_) word = splitmix64(seed);
}

std::uint64_t Rng::next() {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

double Rng::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

std::uint64_t Rng::below(std::uint64_t n) {
  if (n == 0) throw std::invalid_argument("Rng::below(0): the range is empty");
  // Lemire 2019, "Fast random integer generation in an interval": reject the few draws that would favour some values.
  std::uint64_t low = 0;
  std::uint64_t high = multiply_high(next(), n, low);
  if (low < n) {
    const std::uint64_t threshold = (0 - n) % n;
    while (low < threshold) high = multiply_high(next(), n, low);
  }
  return high;
}

std::int64_t Rng::between(std::int64_t low, std::int64_t high) {
  if (low > high) throw std::invalid_argument("Rng::between: low is above high");
  // In unsigned arithmetic the distance of any two values fits; all 2^64 of them wrap to zero.
  const std::uint64_t count = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) + 1;
  const std::uint64_t offset = count == 0 ? next() : below(count);
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + offset);
}

double Rng::normal() {
  const double u1 = 1.0 - uniform();  // (0, 1]: the logarithm is finite
  const double u2 = uniform();
  return std::sqrt(-2.0 * std::log(u1)) * std::cos(2.0 * std::numbers::pi * u2);
}

std::uint64_t derive_seed(std::uint64_t seed, std::string_view label) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : label) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  std::uint64_t state = splitmix64(seed) ^ hash;
  return splitmix64(state);
}

// MT19937 (Matsumoto & Nishimura 1998), initialised by their init_by_array as CPython does.
PythonRandom::PythonRandom(std::uint64_t seed) : index_(624) {
  state_[0] = 19650218U;
  for (std::uint32_t i = 1; i < 624; ++i) state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;

  const std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  const std::uint32_t key_length = key[1] != 0 ? 2 : 1;
  std::size_t i = 1;
  std::uint32_t j = 0;
  const auto advance = [&] {
    if (++i >= 624) {
      state_[0] = state_[623];
      i = 1;
    }
  };
  for (int k = 0; k < 624; ++k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1664525U)) + key[j] + j;
    advance();
    j = (j + 1) % key_length;
  }
  for (int k = 0; k < 623; ++k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1566083941U)) - static_cast<std::uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000U;
}

std::uint32_t PythonRandom::bits32() {
  if (index_ >= 624) {
    for (std::size_t k = 0; k < 624; ++k) {
      const std::uint32_t y = (state_[k] & 0x80000000U) | (state_[(k + 1) % 624] & 0x7fffffffU);
      state_[k] = state_[(k + 397) % 624] ^ (y >> 1) ^ ((y & 1U) != 0 ? 0x9908b0dfU : 0U);
    }
    index_ = 0;
  }
  std::uint32_t y = state_[index_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680U;
  y ^= (y << 15) & 0xefc60000U;
  return y ^ (y >> 18);
}

double PythonRandom::random() {
  const std::uint32_t high = bits32() >> 5;
  const std::uint32_t low = bits32() >> 6;
  return (high * 67108864.0 + low) * (1.0 / 9007199254740992.0);
}

std::uint64_t PythonRandom::getrandbits(int k) {
  if (k < 1 || k > 64) throw std::invalid_argument("PythonRandom::getrandbits: 1 to 64 bits");
  if (k <= 32) return bits32() >> (32 - k);
  const std::uint64_t low = bits32();
  return low | std::uint64_t{bits32() >> (64 - k)} << 32;
}

std::uint64_t PythonRandom::randbelow(std::uint64_t n) {
  if (n == 0) throw std::invalid_argument("PythonRandom::randbelow(0): the range is empty");
  const int bits = static_cast<int>(std::bit_width(n));
  std::uint64_t value = getrandbits(bits);
  while (value >= n) value = getrandbits(bits);
  return value;
}

std::vector<std::size_t> PythonRandom::sample(std::size_t population, std::size_t k) {
  if (k > population) throw std::invalid_argument("PythonRandom::sample: more than the population has");
  std::vector<std::size_t> result;
  result.reserve(k);
  // CPython weighs the size of a list against that of a set; which one is taken decides the draws.
  double set_size = 21;
  if (k > 5) set_size += std::pow(4, std::ceil(std::log(static_cast<double>(k) * 3) / std::log(4.0)));
  if (static_cast<double>(population) <= set_size) {
    std::vector<std::size_t> pool(population);
    std::iota(pool.begin(), pool.end(), std::size_t{0});
    for (std::size_t i = 0; i < k; ++i) {
      const std::size_t j = randbelow(population - i);
      result.push_back(pool[j]);
      pool[j] = pool[population - i - 1];
    }
    return result;
  }
  std::unordered_set<std::size_t> selected;
  while (result.size() < k) {
    const std::size_t j = randbelow(population);
    if (selected.insert(j).second) result.push_back(j);
  }
  return result;
}

}  // namespace nanochat
