#include "core/json_input.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"

namespace nanochat {
namespace {

using nlohmann::json;

constexpr std::string_view kReplacementEscape = "\\ufffd";
constexpr std::string_view kLargestDouble = "1.7976931348623157e308";

// The code unit of the escape \uXXXX at `at`, if there is one.
std::optional<unsigned> escaped_unit(std::string_view text, std::size_t at) {
  if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return std::nullopt;
  unsigned unit = 0;
  for (std::size_t i = at + 2; i < at + 6; ++i) {
    const char c = text[i];
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0) return std::nullopt;
    unit = unit * 16 + static_cast<unsigned>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return unit;
}

bool is_number_part(char c) { return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; }

// A copy of the text with both repairs, which remembers where its bytes come from.
class Repair {
 public:
  explicit Repair(std::string_view text) : text_(text) {
    out_.reserve(text.size());
    while (at_ < text_.size()) {
      if (text_[at_] == '"') {
        string();
      } else if (text_[at_] == '-' || (text_[at_] >= '0' && text_[at_] <= '9')) {
        number();
      } else {
        copy(1);
      }
    }
  }
  std::string take() { return std::move(out_); }

  // The byte of the original for one of the copy.
  std::size_t original(std::size_t byte) const {
    std::size_t shifted = byte;
    for (const auto& [end, extra] : longer_) {
      if (byte > end) shifted = byte - extra;
    }
    return shifted;
  }

 private:
  void copy(std::size_t bytes) {
    out_ += text_.substr(at_, bytes);
    at_ += bytes;
  }

  void string() {
    copy(1);
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\') {
        escape();
      } else {
        copy(1);
      }
    }
    if (at_ < text_.size()) copy(1);
  }

  void escape() {
    const auto unit = escaped_unit(text_, at_);
    const bool high = unit && *unit >= 0xd800 && *unit < 0xdc00;
    const bool low = unit && *unit >= 0xdc00 && *unit < 0xe000;
    const auto next = high ? escaped_unit(text_, at_ + 6) : std::nullopt;
    const bool pair = next && *next >= 0xdc00 && *next < 0xe000;
    if ((high && !pair) || low) {
      out_ += kReplacementEscape;  // as long as what it replaces
      at_ += kReplacementEscape.size();
    } else {
      copy(pair ? 12 : unit ? 6 : 2);  // 2: another escape; its second character is no quote or backslash to see
    }
  }

  void number() {
    std::size_t end = at_;
    while (end < text_.size() && is_number_part(text_[end])) ++end;
    const std::string token(text_.substr(at_, end - at_));
    char* parsed = nullptr;
    const double value = std::strtod(token.c_str(), &parsed);
    if (!std::isinf(value) || parsed != token.c_str() + token.size()) return copy(token.size());
    const std::size_t sign = token[0] == '-' ? 1 : 0;
    copy(sign);
    out_ += kLargestDouble;
    at_ = end;
    const std::size_t before = longer_.empty() ? 0 : longer_.back().second;
    longer_.emplace_back(out_.size(), before + kLargestDouble.size() - (token.size() - sign));  // may wrap; so does its use
  }

  std::string_view text_;
  std::string out_;
  std::size_t at_ = 0;
  std::vector<std::pair<std::size_t, std::size_t>> longer_;  // end of a repaired number, bytes added so far
};

// The byte at which `text` is malformed; 0 when the library has another objection.
std::size_t malformed_byte(std::string_view text) {
  try {
    const json parsed = json::parse(text);
  } catch (const json::parse_error& error) {
    return error.byte;
  } catch (const json::exception&) {
    return 0;
  }
  return 0;
}

}  // namespace

int json_nesting(std::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

bool parse_json_input(std::string_view text, json& value, JsonFault& fault) {
  fault = {};
  value = nullptr;
  if (json_nesting(text) > kMaxJsonInputDepth) {  // walking or printing a deeper tree would recurse too far
    fault.what = fmt::format("arrays and objects are nested more than {} deep", kMaxJsonInputDepth);
    return false;
  }
  value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_discarded()) return true;
  value = nullptr;
  if (!is_valid_utf8(text)) {
    fault.not_utf8 = true;
    fault.what = "holds bytes that are not UTF-8";
    return false;
  }
  Repair repair(text);
  const std::string repaired = repair.take();
  value = json::parse(repaired, nullptr, /*allow_exceptions=*/false);
  if (!value.is_discarded()) return true;
  value = nullptr;
  fault.byte = repair.original(malformed_byte(repaired));
  fault.what = fault.byte > 0 ? fmt::format("malformed JSON at byte {} of {}", fault.byte, text.size()) : "malformed JSON";
  return false;
}

json parse_json_input(std::string_view text, const std::string& where) {
  json value;
  JsonFault fault;
  if (!parse_json_input(text, value, fault)) throw DataError(where + ": " + fault.what);
  return value;
}

std::string repair_json_input(std::string_view text) { return Repair(text).take(); }

}  // namespace nanochat
