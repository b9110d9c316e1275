#include "inference/utf8_ranges.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace nanochat {
namespace {

// Every code point is in exactly one sequence of ranges, and no other bytes are.
TEST(Utf8Ranges, HoldExactlyTheirCodePoints) {
  const std::uint32_t first = 0x7e, last = 0x10fff0;
  const auto sequences = utf8_ranges(first, last);
  const auto inside = [&](std::string_view text) {
    int found = 0;
    for (const auto& sequence : sequences) {
      bool fits = sequence.size() == text.size();
      for (std::size_t i = 0; fits && i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        fits = sequence[i].first <= byte && byte <= sequence[i].last;
      }
      found += fits;
    }
    return found;
  };
  for (std::uint32_t code = 0x60; code <= 0x10ffff; code += code < 0x10000 ? 1 : 97) {
    if (code >= 0xd800 && code <= 0xdfff) continue;
    std::string text;
    if (code < 0x80) {
      text = {static_cast<char>(code)};
    } else if (code < 0x800) {
      text = {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
    } else if (code < 0x10000) {
      text = {static_cast<char>(0xe0 | (code >> 12)), static_cast<char>(0x80 | ((code >> 6) & 0x3f)),
              static_cast<char>(0x80 | (code & 0x3f))};
    } else {
      text = {static_cast<char>(0xf0 | (code >> 18)), static_cast<char>(0x80 | ((code >> 12) & 0x3f)),
              static_cast<char>(0x80 | ((code >> 6) & 0x3f)), static_cast<char>(0x80 | (code & 0x3f))};
    }
    ASSERT_EQ(inside(text), code >= first && code <= last ? 1 : 0) << code;
  }
  EXPECT_EQ(inside("\xed\xa0\x80"), 0);
  EXPECT_EQ(inside("\xc0\x80"), 0);
}

TEST(Utf8Ranges, MergesAndComplements) {
  EXPECT_EQ(merged({{'x', 'z'}, {'a', 'c'}, {'b', 'd'}, {'e', 'e'}}), (CodeRanges{{'a', 'e'}, {'x', 'z'}}));
  EXPECT_EQ(complement({{'b', 'b'}, {0, 'a'}}), (CodeRanges{{'c', kLastCodePoint}}));
  EXPECT_EQ(complement({}), (CodeRanges{{0, kLastCodePoint}}));
  EXPECT_EQ(complement({{0, kLastCodePoint}}), CodeRanges());
}

}  // namespace
}  // namespace nanochat
