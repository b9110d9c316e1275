#pragma once
// For the JSON constraint only: decimal numbers as they are written, without rounding.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nanochat {

// (-1)^negative * digits * 10^-scale. digits has no leading zeros and is empty for 0; scale is at least 0 and least possible.
struct Decimal {
  bool negative = false;
  std::string digits;
  std::int64_t scale = 0;

  // The text of a JSON number; nullopt for other text and for exponents beyond 400.
  static std::optional<Decimal> parse(std::string_view text);
  bool zero() const { return digits.empty(); }
  bool integral() const { return scale == 0; }
  // -1, 0 or 1: below, equal or above.
  static int compare(const Decimal& a, const Decimal& b);
  // The greatest integer that is at most this times 10^shift, limited to +-limit; `exact`, whether it is equal.
  std::int64_t scaled_floor(std::int64_t shift, std::int64_t limit, bool* exact = nullptr) const;
  // Whether this is a multiple of another one, which is not 0.
  bool multiple_of(const Decimal& other) const;
};

}  // namespace nanochat
