#pragma once
// For the parsers of regular expressions and grammars only: reading a text from left to right.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/utf8.h"

namespace nanochat {

class PatternScanner {
 protected:
  explicit PatternScanner(std::string_view text) : text_(text) {}

  static constexpr std::int64_t kMostRepeats = 4096;

  bool well_formed() const {
    for (std::string_view rest = text_; !rest.empty();) {
      const std::size_t length = utf8::character_length(rest);
      if (length == 0) return false;
      rest.remove_prefix(length);
    }
    return true;
  }
  bool done() const { return at_ >= text_.size(); }
  bool next_is(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(std::string_view what) {
    if (!next_is(what)) return false;
    at_ += what.size();
    return true;
  }
  std::uint32_t character() {
    const std::string_view rest = text_.substr(at_);
    const std::size_t length = utf8::character_length(rest);
    at_ += length;
    return static_cast<std::uint32_t>(utf8::decode_character(rest, length));
  }
  // A decimal number; kMostRepeats + 1 for all that are larger than kMostRepeats.
  std::optional<std::int64_t> count() {
    std::int64_t value = 0;
    const std::size_t first = at_;
    for (; !done() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      value = std::min(value * 10 + text_[at_] - '0', kMostRepeats + 1);
    if (at_ == first) return {};
    return value;
  }
  // Exactly so many hexadecimal digits.
  std::optional<std::uint32_t> hex(std::size_t digits) {
    std::uint32_t code = 0;
    if (text_.size() - at_ < digits) return {};
    for (std::size_t i = 0; i < digits; ++i) {
      const char c = text_[at_ + i];
      const bool digit = c >= '0' && c <= '9', lower = c >= 'a' && c <= 'f', upper = c >= 'A' && c <= 'F';
      if (!digit && !lower && !upper) return {};
      code = code * 16 + static_cast<std::uint32_t>(digit ? c - '0' : lower ? c - 'a' + 10 : c - 'A' + 10);
    }
    at_ += digits;
    return code;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace nanochat
