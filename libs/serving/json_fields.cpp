#include "serving/internal/json_fields.h"

#include <algorithm>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "core/format.h"
#include "core/json_input.h"

namespace nanochat {

using nlohmann::json;

namespace {

// An error of the body is not an error of a field, so its "param" is null.
ApiError wrong_text(const std::string& where, std::string_view problem) {
  return ApiError::invalid(fmt::format("{}: {}", where, problem), where == "body" ? "" : where);
}

}  // namespace

json parse_json(std::string_view text, const std::string& where) {
  if (!is_valid_utf8(text)) throw wrong_text(where, "found text that is not UTF-8, expected JSON");
  if (const int depth = json_nesting(text); depth > kMaxJsonDepth) {
    throw wrong_text(where, fmt::format("found JSON nested {} levels deep, expected at most {}", depth, kMaxJsonDepth));
  }
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    throw wrong_text(where, fmt::format("found an error at byte {}, expected valid JSON", error.byte));
  } catch (const json::out_of_range&) {
    throw wrong_text(where, "found a number that is too large, expected one that fits a double");
  }
}

json parse_json_object(std::string_view text, bool allow_empty, const std::string& where) {
  if (allow_empty && text.find_first_not_of(" \t\r\n") == std::string_view::npos) return json::object();
  if (text.empty()) throw wrong_text(where, "found nothing, expected a JSON object");
  json value = parse_json(text, where);
  if (!value.is_object()) {
    throw wrong_text(where, fmt::format("found {}, expected a JSON object", json_kind(value)));
  }
  return value;
}

nlohmann::ordered_json parse_in_order(std::string_view text, std::initializer_list<std::string_view> names,
                                      std::initializer_list<std::string_view> uncounted) {
  using nlohmann::ordered_json;
  bool wanted = true;
  int keys = 0;
  return ordered_json::parse(text, [&](int depth, ordered_json::parse_event_t event, const ordered_json& key) {
    if (event != ordered_json::parse_event_t::key) return true;
    const std::string& name = key.get_ref<const std::string&>();
    if (depth == 1) wanted = std::find(names.begin(), names.end(), name) != names.end();
    const bool counts = std::find(uncounted.begin(), uncounted.end(), name) == uncounted.end();
    if (wanted && counts && ++keys > kMaxOrderedKeys) {
      throw ApiError::invalid(fmt::format("body: found more than {0} keys in schemas and tools, expected at most {0}",
                                          kMaxOrderedKeys));
    }
    return wanted;
  });
}

std::string_view json_kind(const json& value) {
  if (value.is_string()) return "a string";
  if (value.is_boolean()) return "a boolean";
  if (value.is_number_integer()) return "an integer";
  if (value.is_number()) return "a number";
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  return "null";
}

JsonFields::JsonFields(const json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object())
    throw ApiError::invalid(fmt::format("{}: found {}, expected an object", path_, json_kind(object)), path_);
}

std::string JsonFields::name_of(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

ApiError JsonFields::wrong_type(std::string_view name, std::string_view expected, const json& found) const {
  const std::string where = name_of(name);
  return ApiError::invalid(fmt::format("{}: found {}, expected {}", where, json_kind(found), expected), where, "invalid_type");
}

const json* JsonFields::find(std::string_view name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> JsonFields::boolean(std::string_view name) const {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) throw wrong_type(name, "a boolean", *value);
  return value->get<bool>();
}

std::optional<std::string> JsonFields::string(std::string_view name) const {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) throw wrong_type(name, "a string", *value);
  return value->get<std::string>();
}

std::optional<std::int64_t> JsonFields::integer(std::string_view name, std::int64_t lowest, std::int64_t highest) const {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  // 5.0 is an integer to JSON Schema and to many clients.
  const bool whole = value->is_number_float() && std::floor(value->get<double>()) == value->get<double>() &&
                     std::abs(value->get<double>()) < 9e15;
  if (!value->is_number_integer() && !whole) throw wrong_type(name, "an integer", *value);
  const bool too_large = value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
  const std::int64_t number = whole ? static_cast<std::int64_t>(value->get<double>()) : value->get<std::int64_t>();
  if (too_large || number < lowest || number > highest) {
    const std::string range = highest == INT64_MAX ? fmt::format("at least {}", lowest)
                                                   : fmt::format("from {} to {}", lowest, highest);
    throw ApiError::invalid(fmt::format("{}: found {}, expected an integer {}", name_of(name), value->dump(), range),
                            name_of(name), "out_of_range");
  }
  return number;
}

std::optional<double> JsonFields::number(std::string_view name, double lowest, double highest) const {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) throw wrong_type(name, "a number", *value);
  const double number = value->get<double>();
  if (!(number >= lowest && number <= highest)) {
    throw ApiError::invalid(fmt::format("{}: found {}, expected a number from {} to {}", name_of(name), value->dump(), lowest,
                                        highest),
                            name_of(name), "out_of_range");
  }
  return number;
}

const json* JsonFields::object(std::string_view name) const {
  const json* value = find(name);
  if (value != nullptr && !value->is_object()) throw wrong_type(name, "an object", *value);
  return value;
}

const json* JsonFields::array(std::string_view name) const {
  const json* value = find(name);
  if (value != nullptr && !value->is_array()) throw wrong_type(name, "an array", *value);
  return value;
}

}  // namespace nanochat
