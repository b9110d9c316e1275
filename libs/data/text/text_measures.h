#pragma once
// The measures of filters.h for a document. Pure functions of the text and a seed, equal on every machine.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nanochat {

struct Hash128 {
  std::uint64_t low = 0, high = 0;
  bool operator==(const Hash128&) const = default;
  struct Hasher {  // for unordered containers
    std::size_t operator()(const Hash128& hash) const { return static_cast<std::size_t>(hash.low); }
  };
};
Hash128 hash128(std::string_view bytes, std::uint64_t seed);  // MurmurHash3_x64_128

// Share of characters other than letters, marks, ideographs, digits and white space:
// punctuation, symbols, emoji, control and private characters. 0 for an empty text.
double symbol_share(std::string_view text);

// Share of the positions of a text whose next 24 bytes also begin at an earlier
// position. 0 for text that never repeats, nearly 1 for one sentence repeated over
// and over. Estimated from an eighth of the positions in texts of more than 64 KiB.
double repetition_share(std::string_view text);

// MinHash of a text's shingles: 24 consecutive bytes of it with ASCII letters in lower case and every run of ASCII white
// space and punctuation as one space. Two texts whose shingles have Jaccard similarity s agree in a band with
// probability near s^8, and in one of 14 near 1-(1-s^8)^14: 0.56 for s = 0.7, 0.92 for 0.8 ... see algorithms-data.md.
constexpr std::size_t kBands = 14, kRowsPerBand = 8;
struct MinHash {
  std::array<std::uint64_t, kBands> bands{};
  bool enough = false;  // false: too few shingles for a comparison
};
MinHash min_hash(std::string_view text, std::uint64_t seed);

}  // namespace nanochat
