// Numbers with bounds and multiples, for JsonGrammar.

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "inference/internal/json_grammar.h"

namespace nanochat {

bool NumberRange::contains(const Decimal& value) const {
  if (low && Decimal::compare(value, *low) < (low_exclusive ? 1 : 0)) return false;
  if (high && Decimal::compare(value, *high) > (high_exclusive ? -1 : 0)) return false;
  return std::all_of(multiples.begin(), multiples.end(), [&](const Decimal& one) { return value.multiple_of(one); });
}

// A number N is written with the point before its last `scale` digits, without the zeros at its end where they are behind
// the point. N is a multiple of `step`.
struct JsonGrammar::Fixed {
  std::int64_t step, scale;
  std::size_t zeros;  // written behind the digits; only if scale is 0
  std::map<std::pair<std::size_t, std::int64_t>, Rule> inside;  // by digits to come and residue: between the bounds
  std::map<std::tuple<std::size_t, bool, bool, std::int64_t>, Rule> beside{};  // by digits to come, at a bound
};

JsonGrammar::Rule JsonGrammar::fixed_digits(Fixed& fixed, std::size_t place, std::size_t digits, const std::string& low,
                                            const std::string& high, bool at_low, bool at_high, std::int64_t residue) {
  const std::size_t left = digits - place;
  if (!at_low && !at_high) {
    if (const auto known = fixed.inside.find({left, residue}); known != fixed.inside.end()) return known->second;
  } else if (const auto known = fixed.beside.find({left, at_low, at_high, residue}); known != fixed.beside.end()) {
    return known->second;
  }
  std::vector<Sequence> alternatives;
  const auto scale = static_cast<std::size_t>(fixed.scale);
  if (left <= scale && place > 0) {
    // The zeros that are left out: whether the number with them is a multiple, and not below the bound.
    std::int64_t with_zeros = residue;
    for (std::size_t i = 0; i < left; ++i) with_zeros = with_zeros * 10 % fixed.step;
    const bool enough = !at_low || low.find_first_not_of('0', place) == std::string::npos;
    if (with_zeros == 0 && enough) {
      Sequence end;
      grammar_.append_literal(end, std::string(fixed.zeros, '0'));
      alternatives.push_back(end);
    }
  }
  if (left > 0) {
    const char first = at_low ? low[place] : '0', last = at_high ? high[place] : '9';
    std::map<Rule, ByteGrammar::Bytes> by_rest;
    for (char c = first; c <= last; ++c) {
      const std::int64_t next = (residue * 10 + (c - '0')) % fixed.step;
      by_rest[fixed_digits(fixed, place + 1, digits, low, high, at_low && c == first, at_high && c == last, next)].set(
          static_cast<unsigned char>(c));
    }
    for (const auto& [rest, bytes] : by_rest) {
      Sequence sequence;
      if (left == scale && place > 0) sequence.push_back(byte('.'));
      sequence.push_back(grammar_.one_of(bytes));
      sequence.push_back(use(rest));
      alternatives.push_back(sequence);
    }
  }
  const Rule rule = rule_of(alternatives);
  if (!at_low && !at_high) {
    fixed.inside[{left, residue}] = rule;
  } else {
    fixed.beside[{left, at_low, at_high, residue}] = rule;
  }
  return rule;
}

// Numbers N / 10^scale for multiples N of step between 0 <= low and high.
std::optional<JsonGrammar::Rule> JsonGrammar::fixed_point(std::int64_t low, std::int64_t high, std::int64_t step,
                                                          std::int64_t scale) {
  low = (low + step - 1) / step * step;
  high = high / step * step;
  if (low > high) return nothing();
  const auto written = [&](std::int64_t value) {
    std::string text = std::to_string(value);
    if (scale == 0) return text;
    const auto places = static_cast<std::size_t>(scale);
    if (text.size() <= places) text.insert(0, places + 1 - text.size(), '0');
    std::string fraction = text.substr(text.size() - places);
    text.erase(text.size() - places);
    fraction.erase(fraction.find_last_not_of('0') + 1);
    return fraction.empty() ? text : text + "." + fraction;
  };
  if ((high - low) / step < 16) {
    std::vector<std::string> texts;
    for (std::int64_t value = low; value <= high; value += step) texts.push_back(written(value));
    return any_literal(std::move(texts));
  }
  std::vector<Rule> parts;
  Fixed fixed{step, scale, 0, {}};
  if (scale == 0) {
    // 0 is written without the zeros of the others.
    if (low == 0) {
      parts.push_back(literal("0"));
      low = step;
    }
    for (; fixed.step % 10 == 0; fixed.step /= 10, ++fixed.zeros) {
      low /= 10;
      high /= 10;
    }
  }
  if (fixed.step > kMostResidues) {
    if ((high - low) / fixed.step >= kMostMultiples) return {};
    std::vector<std::string> texts;
    for (std::int64_t value = low; value <= high; value += fixed.step)
      texts.push_back(written(value) + std::string(fixed.zeros, '0'));
    parts.push_back(any_literal(std::move(texts)));
    return any_of(parts);
  }
  std::int64_t begin = 0, end = 9;
  for (std::int64_t i = 0; i < scale; ++i) end = end * 10 + 9;
  while (begin <= high) {
    const std::int64_t first = std::max(low, begin), last = std::min(high, end);
    if (first <= last) {
      const std::string from = std::to_string(first), to = std::to_string(last);
      const std::size_t digits = std::max(to.size(), static_cast<std::size_t>(scale) + 1);
      const auto padded = [&](const std::string& text) { return std::string(digits - text.size(), '0') + text; };
      fixed.beside.clear();
      parts.push_back(fixed_digits(fixed, 0, digits, padded(from), padded(to), true, true, 0));
    }
    begin = end + 1;
    end = end * 10 + 9;
  }
  return any_of(parts);
}

JsonGrammar::Rule JsonGrammar::signed_parts(std::vector<Rule> positive, std::vector<Rule> negative) {
  for (const Rule rule : negative) positive.push_back(rule_of({{byte('-'), use(rule)}}));
  return any_of(positive);
}

std::optional<JsonGrammar::Rule> JsonGrammar::number(const NumberRange& range, bool integers_only) {
  // The least and the greatest N = value * 10^scale.
  const auto bounds = [&](std::int64_t scale) {
    std::int64_t low = -kLargest, high = kLargest;
    bool exact = false;
    if (range.low) {
      low = range.low->scaled_floor(scale, kLargest + 1, &exact);
      if (!exact || range.low_exclusive) ++low;
    }
    if (range.high) {
      high = range.high->scaled_floor(scale, kLargest + 1, &exact);
      if (exact && range.high_exclusive) --high;
    }
    return std::pair{std::max(low, -kLargest), std::min(high, kLargest)};
  };
  if (range.multiples.empty()) {
    if (integers_only) {
      const auto [low, high] = bounds(0);
      return low <= high ? integer(low, high) : nothing();
    }
    if (range.free()) return number_;
    std::vector<Rule> positive, negative;
    for (std::int64_t whole = 1; whole <= kDigits; ++whole) {  // digits before the point
      const std::int64_t scale = kDigits - whole;
      const auto [low, high] = bounds(scale);
      const std::int64_t least = whole == 1 ? 0 : (kLargest + 1) / 10;
      if (const std::int64_t first = std::max(low, least); first <= high) {
        positive.push_back(*fixed_point(first, high, 1, scale));
      }
      if (const std::int64_t first = std::max(-high, std::max<std::int64_t>(least, 1)); first <= -low) {
        negative.push_back(*fixed_point(first, -low, 1, scale));
      }
    }
    return signed_parts(std::move(positive), std::move(negative));
  }
  std::int64_t scale = 0, step = 1;
  for (const Decimal& one : range.multiples) scale = std::max(scale, one.scale);
  const auto common = [&](std::int64_t other) {  // the least common multiple; above kLargest, only 0 is left
    const std::int64_t factor = other / std::gcd(step, other);
    step = factor > kLargest / step ? kLargest + 1 : step * factor;
  };
  for (const Decimal& one : range.multiples) common(one.scaled_floor(scale, kLargest + 1));
  if (integers_only || scale >= kDigits) {
    std::int64_t ten = 1;
    for (std::int64_t i = 0; i < scale; ++i) ten = ten > kLargest ? ten : ten * 10;
    common(ten);
    if (step <= kLargest) step /= ten;
    scale = 0;
  }
  for (; scale > 0 && step % 10 == 0; --scale) step /= 10;
  const auto [low, high] = bounds(scale);
  std::vector<Rule> positive, negative;
  if (high >= 0) {
    const auto rule = fixed_point(std::max<std::int64_t>(low, 0), high, step, scale);
    if (!rule) return {};
    positive.push_back(*rule);
  }
  if (low < 0) {
    const auto rule = fixed_point(std::max<std::int64_t>(-high, 1), -low, step, scale);
    if (!rule) return {};
    negative.push_back(*rule);
  }
  return signed_parts(std::move(positive), std::move(negative));
}

}  // namespace nanochat
