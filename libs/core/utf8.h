#pragma once
// Small UTF-8 helpers (well-formed sequences as in the Unicode Standard, table 3-7: no surrogates, no overlong forms,
// nothing above U+10FFFF). Stateless and thread-safe.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace nanochat::utf8 {

// How many bytes at the start of `text` form one character: 1 to 4, or 0 when they are malformed, cut off, or absent.
// `begun`, when given, then receives how many bytes begin a character that the next byte, or the end, leaves unfinished:
// the maximal subpart of the standard, which a decoder replaces by one U+FFFD. 0 where the first byte begins none.
inline std::size_t character_length(std::string_view text, std::size_t* begun = nullptr) {
  const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  if (begun != nullptr) *begun = 0;
  if (text.empty()) return 0;
  const std::uint8_t first = at(0);
  if (first < 0x80) return 1;
  std::size_t length = 0;
  std::uint8_t low = 0x80, high = 0xBF;  // of the second byte
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size() || at(i) < low || at(i) > high) {
      if (begun != nullptr) *begun = i;
      return 0;
    }
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

// Number of characters of well-formed text; JSON Schema's maxLength counts these too.
inline std::int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// The code point of the well-formed character of `length` bytes at the start of `text`.
inline char32_t decode_character(std::string_view text, std::size_t length) {
  const auto at = [&](std::size_t i) { return static_cast<char32_t>(static_cast<std::uint8_t>(text[i])); };
  switch (length) {
    case 1: return at(0);
    case 2: return (at(0) & 0x1F) << 6 | (at(1) & 0x3F);
    case 3: return (at(0) & 0x0F) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
    default: return (at(0) & 0x07) << 18 | (at(1) & 0x3F) << 12 | (at(2) & 0x3F) << 6 | (at(3) & 0x3F);
  }
}

// Length in bytes of the longest well-formed prefix of `text`. Words of ASCII are skipped at once.
inline std::size_t valid_prefix(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    std::uint64_t word = 0;
    if (i + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + i, sizeof word);
      if ((word & 0x8080808080808080ULL) == 0) {
        i += sizeof word;
        continue;
      }
    }
    const std::size_t length = character_length(text.substr(i, 4));
    if (length == 0) break;
    i += length;
  }
  return i;
}

// Number of bytes at the end of `text` (0 to 3) that begin an incomplete character.
inline std::size_t incomplete_tail(std::string_view text) {
  for (std::size_t tail = 1; tail <= 3 && tail <= text.size(); ++tail) {
    std::size_t begun = 0;
    character_length(text.substr(text.size() - tail), &begun);
    if (begun == tail) return tail;
  }
  return 0;
}

}  // namespace nanochat::utf8
