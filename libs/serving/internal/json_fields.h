#pragma once
// Reads a JSON object that a client sent. If a field has a wrong type or is out of range, the accessor throws ApiError (status
// 400) with the name of the field. A field that is null counts as absent. Unknown fields are ignored.
//
//   const JsonFields fields(body);
//   const double temperature = fields.number("temperature", 0, 100).value_or(1.0);

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "serving/api_error.h"

namespace nanochat {

inline constexpr int kMaxJsonDepth = 128;

// Throws ApiError (400) if `text` is not JSON, not UTF-8, or nested deeper than kMaxJsonDepth. The depth is checked before
// anything is allocated. `where` begins the message: "body", or the name of the field that holds the text.
nlohmann::json parse_json(std::string_view text, const std::string& where = "body");
// The same, but `text` must be an object. With `allow_empty`, an empty text is an empty object.
nlohmann::json parse_json_object(std::string_view text, bool allow_empty = false, const std::string& where = "body");

// Parses only the members `names` of an object that parse_json_object() has accepted, and keeps the order of their keys. Throws
// ApiError (400) if they have more than kMaxOrderedKeys keys: an ordered_json searches linearly when it adds a key.
// Keys of the few names `uncounted` do not count, because an object has each of them at most once.
inline constexpr int kMaxOrderedKeys = 5000;
nlohmann::ordered_json parse_in_order(std::string_view text, std::initializer_list<std::string_view> names,
                                      std::initializer_list<std::string_view> uncounted = {});

class JsonFields {
 public:
  // Errors put `path` before the name of a field: with "messages[0]", they say "messages[0].role". `object` must outlive this.
  explicit JsonFields(const nlohmann::json& object, std::string path = {});

  const nlohmann::json* find(std::string_view name) const;  // nullptr if the field is absent or null
  std::optional<bool> boolean(std::string_view name) const;
  std::optional<std::string> string(std::string_view name) const;
  std::optional<std::int64_t> integer(std::string_view name, std::int64_t lowest, std::int64_t highest) const;
  std::optional<double> number(std::string_view name, double lowest, double highest) const;
  const nlohmann::json* object(std::string_view name) const;
  const nlohmann::json* array(std::string_view name) const;

  std::string name_of(std::string_view name) const;  // with the path
  // "temperature: found a string, expected a number"
  ApiError wrong_type(std::string_view name, std::string_view expected, const nlohmann::json& found) const;

 private:
  const nlohmann::json& object_;
  std::string path_;
};

// The type of a value in messages: "a string", "an object".
std::string_view json_kind(const nlohmann::json& value);

}  // namespace nanochat
