#pragma once
// Sets of code points, and their UTF-8 as ranges of bytes.

#include <cstdint>
#include <utility>
#include <vector>

namespace nanochat {

inline constexpr std::uint32_t kLastCodePoint = 0x10ffff;

using CodeRange = std::pair<std::uint32_t, std::uint32_t>;  // the first and the last code point
using CodeRanges = std::vector<CodeRange>;

CodeRanges merged(CodeRanges ranges);  // sorted, without overlaps
CodeRanges complement(CodeRanges ranges);

struct ByteRange {
  unsigned char first, last;
};
// The code points first to last, without surrogates, as sequences of ranges of bytes.
std::vector<std::vector<ByteRange>> utf8_ranges(std::uint32_t first, std::uint32_t last);

}  // namespace nanochat
