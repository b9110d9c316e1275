#include "data/text/text_measures.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <vector>

namespace nanochat {
namespace {

constexpr std::size_t kShingle = 24;
constexpr std::size_t kBins = kBands * kRowsPerBand;
constexpr std::size_t kMinShingles = 100;  // about a bin each

// The finaliser of MurmurHash3: every bit of the result depends on every bit of the input.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

// Polynomial hash of the last kShingle bytes, one byte after the other.
class RollingHash {
 public:
  RollingHash() {
    for (std::size_t i = 0; i + 1 < kShingle; ++i) leaving_ *= kBase;
  }
  void push(unsigned char entering) { value_ = value_ * kBase + entering + 1; }
  void roll(unsigned char gone, unsigned char entering) { push_after(value_ - (gone + 1u) * leaving_, entering); }
  std::uint64_t value() const { return value_; }

 private:
  void push_after(std::uint64_t rest, unsigned char entering) { value_ = rest * kBase + entering + 1; }
  static constexpr std::uint64_t kBase = 0x9e3779b97f4a7c15ULL;
  std::uint64_t leaving_ = 1, value_ = 0;
};

template <typename Function>
void for_each_shingle(std::string_view text, Function function) {
  if (text.size() < kShingle) return;
  RollingHash hash;
  for (std::size_t i = 0; i < kShingle; ++i) hash.push(static_cast<unsigned char>(text[i]));
  function(hash.value());
  for (std::size_t i = kShingle; i < text.size(); ++i) {
    hash.roll(static_cast<unsigned char>(text[i - kShingle]), static_cast<unsigned char>(text[i]));
    function(hash.value());
  }
}

bool is_ascii_word(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

bool is_symbol(char32_t c) {
  if (c < 0x80) return !is_ascii_word(static_cast<unsigned char>(c)) && c != ' ' && (c < '\t' || c > '\r');
  struct Range {
    char32_t first, last;
  };
  // Blocks of controls, punctuation, symbols, private use and pictures; sorted.
  static constexpr Range kRanges[] = {
      {0x80, 0x84},     {0x86, 0x9f},     {0xa1, 0xa9},     {0xab, 0xb4},       {0xb6, 0xb9},       {0xbb, 0xbf},
      {0xd7, 0xd7},     {0xf7, 0xf7},     {0x2c2, 0x2c5},   {0x200b, 0x2027},   {0x202a, 0x202e},   {0x2030, 0x205e},
      {0x2060, 0x206f}, {0x20a0, 0x20cf}, {0x2190, 0x2bff}, {0x2e00, 0x2e7f},   {0x3001, 0x3004},   {0x3008, 0x3020},
      {0x3030, 0x3030}, {0xe000, 0xf8ff}, {0xfe10, 0xfe1f}, {0xfe30, 0xfe6f},   {0xfeff, 0xff0f},   {0xff1a, 0xff20},
      {0xff3b, 0xff40}, {0xff5b, 0xff65}, {0xffe0, 0xffff}, {0x1f000, 0x1faff}, {0xf0000, 0x10ffff}};
  const auto* range = std::lower_bound(std::begin(kRanges), std::end(kRanges), c,
                                       [](const Range& candidate, char32_t value) { return candidate.last < value; });
  return range != std::end(kRanges) && c >= range->first;
}

}  // namespace

Hash128 hash128(std::string_view bytes, std::uint64_t seed) {
  constexpr std::uint64_t c1 = 0x87c37b91114253d5ULL, c2 = 0x4cf5ad432745937fULL;
  std::uint64_t h1 = seed, h2 = seed;
  const auto load = [](const char* from, std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < count; ++i) value |= std::uint64_t{static_cast<unsigned char>(from[i])} << (8 * i);
    return value;
  };
  const std::size_t blocks = bytes.size() / 16;
  for (std::size_t i = 0; i < blocks; ++i) {
    const std::uint64_t k1 = load(bytes.data() + 16 * i, 8), k2 = load(bytes.data() + 16 * i + 8, 8);
    h1 ^= std::rotl(k1 * c1, 31) * c2;
    h1 = (std::rotl(h1, 27) + h2) * 5 + 0x52dce729;
    h2 ^= std::rotl(k2 * c2, 33) * c1;
    h2 = (std::rotl(h2, 31) + h1) * 5 + 0x38495ab5;
  }
  const std::size_t rest = bytes.size() % 16;
  const char* tail = bytes.data() + 16 * blocks;
  if (rest > 8) h2 ^= std::rotl(load(tail + 8, rest - 8) * c2, 33) * c1;
  if (rest > 0) h1 ^= std::rotl(load(tail, std::min<std::size_t>(rest, 8)) * c1, 31) * c2;
  h1 ^= bytes.size();
  h2 ^= bytes.size();
  h1 += h2;
  h2 += h1;
  h1 = mix(h1);
  h2 = mix(h2);
  h1 += h2;
  h2 += h1;
  return {h1, h2};
}

double symbol_share(std::string_view text) {
  std::size_t characters = 0, symbols = 0;
  for (std::size_t i = 0; i < text.size(); ++characters) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    char32_t c = length == 1 ? lead : lead & (0xffu >> (length + 1));
    for (std::size_t k = 1; k < length && i + k < text.size(); ++k) {
      c = (c << 6) | (static_cast<unsigned char>(text[i + k]) & 0x3fu);
    }
    symbols += is_symbol(c) ? 1 : 0;
    i += length;
  }
  return characters == 0 ? 0.0 : static_cast<double>(symbols) / static_cast<double>(characters);
}

double repetition_share(std::string_view text) {
  if (text.size() < 2 * kShingle) return 0.0;
  // By the hash itself, so that all places with the same bytes are in the sample or none is.
  const std::uint64_t sampled = text.size() > (std::size_t{64} << 10) ? 7 : 0;
  std::vector<std::uint64_t> table(std::bit_ceil((text.size() / (sampled + 1)) * 2 + 16), 0);
  const std::size_t mask = table.size() - 1;
  std::size_t places = 0, repeated = 0;
  for_each_shingle(text, [&](std::uint64_t value) {
    const std::uint64_t key = mix(value) | 1;  // 0 marks an empty slot
    if (((key >> 1) & sampled) != 0 || places > mask - 8) return;
    ++places;
    std::size_t slot = (key >> 20) & mask;
    while (table[slot] != 0 && table[slot] != key) slot = (slot + 1) & mask;
    repeated += table[slot] == key ? 1 : 0;
    table[slot] = key;
  });
  return places == 0 ? 0.0 : static_cast<double>(repeated) / static_cast<double>(places);
}

MinHash min_hash(std::string_view text, std::uint64_t seed) {
  std::string plain;
  plain.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_ascii_word(byte)) {
      plain += byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte | 0x20) : c;
    } else if (!plain.empty() && plain.back() != ' ') {
      plain += ' ';
    }
  }
  // One hash a shingle: its high bits choose a bin, each bin keeps its smallest (one permutation hashing, P. Li, A. Owen,
  // C.-H. Zhang, 2012).
  constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::array<std::uint64_t, kBins> bins;
  bins.fill(kEmpty);
  std::size_t shingles = 0;
  for_each_shingle(plain, [&](std::uint64_t value) {
    const std::uint64_t hash = mix(value ^ seed);
    std::uint64_t& bin = bins[((hash >> 32) * kBins) >> 32];
    bin = std::min(bin, hash);
    ++shingles;
  });
  MinHash result;
  result.enough = shingles >= kMinShingles;
  if (!result.enough) return result;
  // An empty bin takes the value of another one that is chosen by a hash of its own number (optimal densification,
  // A. Shrivastava, 2017).
  std::array<std::uint64_t, kBins> filled = bins;
  for (std::size_t i = 0; i < kBins; ++i) {
    for (std::uint64_t attempt = 1; filled[i] == kEmpty; ++attempt) {
      filled[i] = bins[mix(seed + i * 1000003 + attempt) % kBins];
    }
  }
  for (std::size_t band = 0; band < kBands; ++band) {
    std::uint64_t key = mix(seed + band);
    for (std::size_t row = 0; row < kRowsPerBand; ++row) key = mix(key ^ filled[band * kRowsPerBand + row]);
    result.bands[band] = key;
  }
  return result;
}

}  // namespace nanochat
