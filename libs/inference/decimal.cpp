#include "inference/internal/decimal.h"

#include <algorithm>
#include <charconv>

namespace nanochat {

std::optional<Decimal> Decimal::parse(std::string_view text) {
  Decimal out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.remove_prefix(1);
  }
  std::int64_t exponent = 0;
  if (const std::size_t e = text.find_first_of("eE"); e != std::string_view::npos) {
    std::string_view written = text.substr(e + 1);
    if (written.starts_with('+')) written.remove_prefix(1);
    const auto [end, error] = std::from_chars(written.data(), written.data() + written.size(), exponent);
    if (error != std::errc() || end != written.data() + written.size()) return {};
    text = text.substr(0, e);
  }
  constexpr std::int64_t kLargestExponent = 400;
  if (exponent > kLargestExponent || exponent < -kLargestExponent) return {};
  for (const char c : text) {
    if (c == '.') continue;
    if (c < '0' || c > '9') return {};
    out.digits.push_back(c);
  }
  const std::size_t point = text.find('.');
  if (out.digits.empty() || text.find('.', point == std::string_view::npos ? point : point + 1) != std::string_view::npos)
    return {};
  out.scale = (point == std::string_view::npos ? 0 : static_cast<std::int64_t>(text.size() - point) - 1) - exponent;
  if (out.scale < 0) {
    out.digits.append(static_cast<std::size_t>(-out.scale), '0');
    out.scale = 0;
  }
  for (; out.scale > 0 && !out.digits.empty() && out.digits.back() == '0'; --out.scale) out.digits.pop_back();
  out.digits.erase(0, std::min(out.digits.find_first_not_of('0'), out.digits.size()));
  if (out.digits.empty()) out = Decimal();
  return out;
}

int Decimal::compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  const std::int64_t scale = std::max(a.scale, b.scale);
  const auto aligned = [&](const Decimal& one) {
    return one.zero() ? std::string() : one.digits + std::string(static_cast<std::size_t>(scale - one.scale), '0');
  };
  const std::string x = aligned(a), y = aligned(b);
  const int sign = x.size() != y.size() ? (x.size() < y.size() ? -1 : 1) : (x < y ? -1 : x == y ? 0 : 1);
  return a.negative ? -sign : sign;
}

std::int64_t Decimal::scaled_floor(std::int64_t shift, std::int64_t limit, bool* exact) const {
  std::string whole = digits;
  bool cut = false;
  if (shift >= scale) {
    if (!whole.empty()) whole.append(static_cast<std::size_t>(shift - scale), '0');
  } else {
    const auto removed = std::min(static_cast<std::size_t>(scale - shift), whole.size());
    cut = whole.find_first_not_of('0', whole.size() - removed) != std::string::npos;
    whole.erase(whole.size() - removed);
  }
  if (exact != nullptr) *exact = !cut;
  constexpr std::size_t kDigits = 18;  // fit an int64
  if (whole.size() > kDigits) {
    if (exact != nullptr) *exact = false;
    return negative ? -limit : limit;
  }
  std::int64_t value = 0;
  for (const char c : whole) value = value * 10 + (c - '0');
  if (negative) value = -value - (cut ? 1 : 0);
  if ((value > limit || value < -limit) && exact != nullptr) *exact = false;
  return std::clamp(value, -limit, limit);
}

bool Decimal::multiple_of(const Decimal& other) const {
  // Long division of the digits, both with the same scale.
  const std::int64_t common = std::max(scale, other.scale);
  const std::string dividend = digits + std::string(static_cast<std::size_t>(common - scale), '0');
  const std::string divisor_text = other.digits + std::string(static_cast<std::size_t>(common - other.scale), '0');
  if (zero()) return true;
  std::string rest;
  const auto at_least = [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() > b.size() : a >= b;
  };
  for (const char c : dividend) {
    rest.push_back(c);
    rest.erase(0, std::min(rest.find_first_not_of('0'), rest.size()));
    while (!rest.empty() && at_least(rest, divisor_text)) {
      int borrow = 0;
      for (std::size_t i = 0; i < rest.size(); ++i) {
        char& digit = rest[rest.size() - 1 - i];
        int value = digit - '0' - borrow - (i < divisor_text.size() ? divisor_text[divisor_text.size() - 1 - i] - '0' : 0);
        borrow = value < 0 ? 1 : 0;
        digit = static_cast<char>('0' + value + 10 * borrow);
      }
      rest.erase(0, std::min(rest.find_first_not_of('0'), rest.size()));
    }
  }
  return rest.empty();
}

}  // namespace nanochat
