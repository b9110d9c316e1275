#pragma once
// Parsing of JSON from users: rows of data sets, prompts, tasks. All commands use this, so
// they treat a row in the same way, and no exception of the JSON library reaches a user.
//
// Accepted although strict parsers refuse it, as in Python's json:
// - an escape for half of a surrogate pair (\ud83d without its other half) becomes U+FFFD
// - a number beyond the range of double becomes the largest double with its sign
// Refused: bytes that are not UTF-8, and arrays and objects nested deeper than kMaxJsonInputDepth.

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace nanochat {

inline constexpr int kMaxJsonInputDepth = 256;

struct JsonFault {
  bool not_utf8 = false;
  std::size_t byte = 0;  // position of the fault in the text, from 1
  std::string what;      // "malformed JSON at byte 12 of 40", "holds bytes that are not UTF-8"
};

// Nesting depth of arrays and objects in the text of a JSON value.
int json_nesting(std::string_view text);

// Parses one value. If the text is not valid, returns false with `value` null and `fault` filled in.
bool parse_json_input(std::string_view text, nlohmann::json& value, JsonFault& fault);

// The same for text from the place `where` ("prompts.jsonl:3"). Throws DataError; the message begins with `where`.
nlohmann::json parse_json_input(std::string_view text, const std::string& where);

// `text` with the two replacements above; equal to `text` if there is nothing to replace.
std::string repair_json_input(std::string_view text);

}  // namespace nanochat
