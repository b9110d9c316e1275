#pragma once
// JSON that comes from outside: rows of data sets, prompts, tasks. One place decides what is read and says what is wrong,
// so that no exception of the JSON library reaches a user and every command treats the same row alike.
//
// Read although strict parsers refuse it, as Python's json does:
//   - an escape for half a surrogate pair (\ud83d without its other half) stands for no character; it becomes U+FFFD
//   - a number beyond the range of double becomes the largest double, with its sign
// Refused: bytes that are not UTF-8, and arrays and objects nested deeper than kMaxJsonInputDepth.

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace nanochat {

inline constexpr int kMaxJsonInputDepth = 256;

struct JsonFault {
  bool not_utf8 = false;
  std::size_t byte = 0;  // of the text, from 1, where the fault was found
  std::string what;      // "malformed JSON at byte 12 of 40", "holds bytes that are not UTF-8"
};

// How deep arrays and objects are nested in the text of a JSON value.
int json_nesting(std::string_view text);

// Parses one value. False, with `value` null and `fault` filled in, when the text is none.
bool parse_json_input(std::string_view text, nlohmann::json& value, JsonFault& fault);

// The same for text that stands at `where` ("prompts.jsonl:3"). Throws DataError that begins with it.
nlohmann::json parse_json_input(std::string_view text, const std::string& where);

// `text` with the two repairs above; equal to `text` when there is nothing to repair.
std::string repair_json_input(std::string_view text);

}  // namespace nanochat
