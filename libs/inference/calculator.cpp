#include "inference/calculator.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <variant>

#include <spdlog/fmt/fmt.h>

namespace nanochat {
namespace {

constexpr int kMaxDepth = 32;
constexpr std::int64_t kExactInDouble = std::int64_t{1} << 53;

using Number = std::variant<std::int64_t, double>;
using Result = std::optional<Number>;

double as_double(const Number& number) {
  return std::visit([](auto value) { return static_cast<double>(value); }, number);
}

Result finite(double value) { return std::isfinite(value) ? Result(value) : std::nullopt; }

// Python's float_floor_div.
Result floor_divide(double a, double b) {
  if (b == 0.0) return std::nullopt;
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0.0 && (b < 0.0) != (remainder < 0.0)) quotient -= 1.0;
  if (quotient == 0.0) return std::copysign(0.0, a / b);
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1.0;
  return finite(floored);
}

Result floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0 || (a == INT64_MIN && b == -1)) return std::nullopt;
  const bool down = a % b != 0 && (a < 0) != (b < 0);
  return a / b - (down ? 1 : 0);
}

enum class Operator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide };

Result apply_integers(Operator op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (op) {
    case Operator::kAdd: return __builtin_add_overflow(a, b, &result) ? Result() : result;
    case Operator::kSubtract: return __builtin_sub_overflow(a, b, &result) ? Result() : result;
    case Operator::kMultiply: return __builtin_mul_overflow(a, b, &result) ? Result() : result;
    case Operator::kFloorDivide: return floor_divide(a, b);
    case Operator::kDivide: break;
  }
  // Both are floats exactly, so the quotient is rounded once, as Python's is.
  const auto exact = [](std::int64_t value) { return value >= -kExactInDouble && value <= kExactInDouble; };
  if (b == 0 || !exact(a) || !exact(b)) return std::nullopt;
  return static_cast<double>(a) / static_cast<double>(b);
}

Result apply(Operator op, const Result& left, const Result& right) {
  if (!left || !right) return std::nullopt;
  const auto* a = std::get_if<std::int64_t>(&*left);
  const auto* b = std::get_if<std::int64_t>(&*right);
  if (a != nullptr && b != nullptr) return apply_integers(op, *a, *b);
  const double x = as_double(*left), y = as_double(*right);
  switch (op) {
    case Operator::kAdd: return finite(x + y);
    case Operator::kSubtract: return finite(x - y);
    case Operator::kMultiply: return finite(x * y);
    case Operator::kDivide: return y == 0.0 ? Result() : finite(x / y);
    case Operator::kFloorDivide: return floor_divide(x, y);
  }
  return std::nullopt;
}

// The text of an expression, from left to right.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}
  void space() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  // The longest run of characters that `is` accepts.
  template <typename Is>
  std::string_view run(Is is) {
    const std::size_t begin = at_;
    while (at_ < text_.size() && is(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool at_end() const { return at_ == text_.size(); }
  void skip() { ++at_; }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
};

// Sums of products of factors; nothing where the text is no expression.
class Arithmetic {
 public:
  explicit Arithmetic(std::string_view text) : cursor_(text) {}

  Result evaluate() {
    Result result = sum(0);
    return cursor_.at_end() ? result : std::nullopt;
  }

 private:
  Result sum(int depth) {
    Result result = product(depth);
    for (;;) {
      cursor_.space();
      if (!result) return std::nullopt;
      if (cursor_.take("+")) {
        result = apply(Operator::kAdd, result, product(depth));
      } else if (cursor_.take("-")) {
        result = apply(Operator::kSubtract, result, product(depth));
      } else {
        return result;
      }
    }
  }

  Result product(int depth) {
    Result result = factor(depth);
    for (;;) {
      cursor_.space();
      if (!result) return std::nullopt;
      if (cursor_.take("//")) {
        result = apply(Operator::kFloorDivide, result, factor(depth));
      } else if (cursor_.take("/")) {
        result = apply(Operator::kDivide, result, factor(depth));
      } else if (cursor_.take("*")) {
        result = apply(Operator::kMultiply, result, factor(depth));
      } else {
        return result;
      }
    }
  }

  Result factor(int depth) {
    cursor_.space();
    if (depth == kMaxDepth) return std::nullopt;
    if (cursor_.take("+")) return factor(depth + 1);
    if (cursor_.take("-")) return negative(factor(depth + 1));
    if (!cursor_.take("(")) return number();
    Result result = sum(depth + 1);
    return cursor_.take(")") ? result : std::nullopt;
  }

  static Result negative(const Result& value) {
    if (!value) return std::nullopt;
    const auto* integer = std::get_if<std::int64_t>(&*value);
    if (integer == nullptr) return -std::get<double>(*value);
    return *integer == INT64_MIN ? Result() : -*integer;
  }

  Result number() {
    const std::string_view digits = cursor_.run([](char c) { return (c >= '0' && c <= '9') || c == '.'; });
    const auto points = std::count(digits.begin(), digits.end(), '.');
    if (points > 1 || digits.size() == static_cast<std::size_t>(points)) return std::nullopt;  // none, or "." alone
    if (points == 0) {
      std::int64_t integer = 0;
      if (std::from_chars(digits.data(), digits.data() + digits.size(), integer).ec != std::errc()) return std::nullopt;
      return digits[0] == '0' && integer != 0 ? Result() : integer;  // 007 is no Python
    }
    double real = 0.0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), real).ec != std::errc()) return std::nullopt;
    return real;
  }

  Cursor cursor_;
};

// 'text'.count('part'), with parentheses around any of it.
class Count {
 public:
  explicit Count(std::string_view text) : cursor_(text) {}

  std::optional<std::int64_t> evaluate() {
    const auto result = call();
    cursor_.space();
    return cursor_.at_end() ? result : std::nullopt;
  }

 private:
  // A call may stand in parentheses, and so may the string that it is a method of: which of them it is shows behind it.
  std::optional<std::int64_t> call() {
    int open = 0;
    for (cursor_.space(); cursor_.take("("); cursor_.space()) {
      if (++open == kMaxDepth) return std::nullopt;
    }
    std::string text;
    if (!literals(text)) return std::nullopt;
    for (cursor_.space(); open > 0 && cursor_.take(")"); cursor_.space()) --open;
    if (!cursor_.take(".")) return std::nullopt;
    cursor_.space();
    if (!cursor_.take("count")) return std::nullopt;
    cursor_.space();
    std::string part;
    if (cursor_.peek() != '(' || !argument(part)) return std::nullopt;
    for (cursor_.space(); open > 0 && cursor_.take(")"); cursor_.space()) --open;
    return open == 0 ? std::optional(occurrences(text, part)) : std::nullopt;
  }

  // A string in one pair of parentheses or more.
  bool argument(std::string& part) {
    int open = 0;
    for (cursor_.space(); cursor_.take("("); cursor_.space()) {
      if (++open == kMaxDepth) return false;
    }
    if (!literals(part)) return false;
    for (; open > 0; --open) {
      cursor_.space();
      if (!cursor_.take(")")) return false;
    }
    return true;
  }

  bool literals(std::string& text) {
    bool any = false;
    for (cursor_.space(); cursor_.peek() == '\'' || cursor_.peek() == '"'; cursor_.space()) {
      const char quote = cursor_.peek();
      cursor_.skip();
      text += cursor_.run([quote](char c) { return c != quote; });
      if (cursor_.at_end()) return false;
      cursor_.skip();
      any = true;
    }
    return any;
  }

  // As str.count: none overlaps another, and an empty part stands between all characters, which are ASCII.
  static std::int64_t occurrences(std::string_view text, std::string_view part) {
    if (part.empty()) return static_cast<std::int64_t>(text.size()) + 1;
    std::int64_t count = 0;
    for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++count;
    return count;
  }

  Cursor cursor_;
};

bool consists_of(std::string_view text, std::string_view characters) {
  return text.find_first_not_of(characters) == std::string_view::npos;
}

}  // namespace

std::string python_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  if (value == 0.0) return std::signbit(value) ? "-0.0" : "0.0";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, std::fabs(value), std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  const std::size_t e = text.find('e');
  int exponent = 0;
  const char* first = text.data() + e + 1;
  std::from_chars(*first == '+' ? first + 1 : first, end, exponent);
  std::string digits(1, text[0]);
  if (e > 2) digits += text.substr(2, e - 2);
  const auto count = static_cast<int>(digits.size());
  std::string result = value < 0 ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    result += digits[0];
    if (count > 1) result += "." + digits.substr(1);
    return result + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return result + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (count <= exponent + 1) return result + digits + std::string(whole - digits.size(), '0') + ".0";
  return result + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::optional<std::string> calculate(std::string_view expression) {
  if (expression.size() > kMaxExpressionBytes) return std::nullopt;
  std::string text(expression);
  std::erase(text, ',');
  if (consists_of(text, "0123456789*+-/.() ")) {
    const Result result = Arithmetic(text).evaluate();
    if (!result) return std::nullopt;
    const auto* integer = std::get_if<std::int64_t>(&*result);
    return integer != nullptr ? std::to_string(*integer) : python_float(std::get<double>(*result));
  }
  constexpr std::string_view kCountCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'\"()._ ";
  if (!consists_of(text, kCountCharacters) || text.find(".count(") == std::string::npos) return std::nullopt;
  // Three quotes in a row begin another kind of literal.
  if (text.find("'''") != std::string::npos || text.find("\"\"\"") != std::string::npos) return std::nullopt;
  const auto count = Count(text).evaluate();
  return count ? std::optional(std::to_string(*count)) : std::nullopt;
}

}  // namespace nanochat
