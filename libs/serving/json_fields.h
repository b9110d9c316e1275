#pragma once
// Reading a JSON object that a client sent: each accessor names the field when its type or range is wrong. null counts as
// absent, fields that nobody asks for are ignored.

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "serving/api_error.h"

namespace nanochat {

inline constexpr int kMaxJsonDepth = 128;

// Throws ApiError (400) for what is not JSON, not UTF-8, or nested deeper than kMaxJsonDepth (found before anything is built).
nlohmann::json parse_json(std::string_view text);
// The same, of which an object must come out; an empty text is an empty object when `allow_empty`.
nlohmann::json parse_json_object(std::string_view text, bool allow_empty = false);

// Members `names` of the object that parse_json_object() has read, with the order of their keys, which it does not keep; an
// absent one is absent. Throws ApiError (400) for more than kMaxOrderedKeys: with order, a key costs a search among the others.
inline constexpr int kMaxOrderedKeys = 5000;
nlohmann::ordered_json parse_in_order(std::string_view text, std::initializer_list<std::string_view> names);

class JsonFields {
 public:
  // `path` stands before the names of fields in errors: "messages[0]". `object` must outlive this.
  explicit JsonFields(const nlohmann::json& object, std::string path = {});

  const nlohmann::json* find(std::string_view name) const;  // null when absent or null
  std::optional<bool> boolean(std::string_view name) const;
  std::optional<std::string> string(std::string_view name) const;
  std::optional<std::int64_t> integer(std::string_view name, std::int64_t lowest, std::int64_t highest) const;
  std::optional<double> number(std::string_view name, double lowest, double highest) const;
  const nlohmann::json* object(std::string_view name) const;
  const nlohmann::json* array(std::string_view name) const;

  std::string name_of(std::string_view name) const;  // with the path
  // "temperature: expected a number, found a string"
  ApiError wrong_type(std::string_view name, std::string_view expected, const nlohmann::json& found) const;

 private:
  const nlohmann::json& object_;
  std::string path_;
};

// "a string", "an object": for messages.
std::string_view json_kind(const nlohmann::json& value);

}  // namespace nanochat
