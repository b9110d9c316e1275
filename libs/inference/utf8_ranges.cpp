#include "inference/utf8_ranges.h"

#include <algorithm>
#include <array>

namespace nanochat {

CodeRanges merged(CodeRanges ranges) {
  std::sort(ranges.begin(), ranges.end());
  CodeRanges out;
  for (const CodeRange& range : ranges) {
    if (!out.empty() && range.first <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, range.second);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

CodeRanges complement(CodeRanges ranges) {
  CodeRanges out;
  std::uint32_t next = 0;
  for (const CodeRange& range : merged(std::move(ranges))) {
    if (range.first > next) out.emplace_back(next, range.first - 1);
    next = range.second + 1;
  }
  if (next <= kLastCodePoint) out.emplace_back(next, kLastCodePoint);
  return out;
}

std::vector<std::vector<ByteRange>> utf8_ranges(std::uint32_t first, std::uint32_t last) {
  std::vector<std::vector<ByteRange>> out;
  const auto encode = [](std::uint32_t code, std::size_t length) {
    std::array<unsigned char, 4> bytes{};
    if (length == 1) {
      bytes[0] = static_cast<unsigned char>(code);
      return bytes;
    }
    for (std::size_t i = length; i-- > 1; code >>= 6) bytes[i] = static_cast<unsigned char>(0x80 | (code & 0x3f));
    static constexpr std::array<unsigned, 5> kLead = {0, 0, 0xc0, 0xe0, 0xf0};
    bytes[0] = static_cast<unsigned char>(kLead[length] | code);
    return bytes;
  };
  // Within one length: split until all bytes but the first that differs run through all their values.
  const auto split = [&](auto&& self, std::uint32_t low, std::uint32_t high, std::size_t length) -> void {
    for (std::size_t i = 1; i < length; ++i) {
      const std::uint32_t mask = (1U << (6 * i)) - 1;
      if ((low & ~mask) == (high & ~mask)) continue;
      if ((low & mask) != 0) {
        self(self, low, low | mask, length);
        self(self, (low | mask) + 1, high, length);
        return;
      }
      if ((high & mask) != mask) {
        self(self, low, (high & ~mask) - 1, length);
        self(self, high & ~mask, high, length);
        return;
      }
    }
    const auto from = encode(low, length), to = encode(high, length);
    std::vector<ByteRange> sequence;
    for (std::size_t i = 0; i < length; ++i) sequence.push_back({from[i], to[i]});
    out.push_back(std::move(sequence));
  };
  struct Part {
    std::uint32_t first, last;
    std::size_t length;
  };
  static constexpr std::array<Part, 5> kParts = {
      {{0, 0x7f, 1}, {0x80, 0x7ff, 2}, {0x800, 0xd7ff, 3}, {0xe000, 0xffff, 3}, {0x10000, 0x10ffff, 4}}};
  for (const Part& part : kParts) {
    const std::uint32_t low = std::max(first, part.first), high = std::min(last, part.last);
    if (low <= high) split(split, low, high, part.length);
  }
  return out;
}

}  // namespace nanochat
