#pragma once
// For SchemaShapes only: reading schemas and changing shapes.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "inference/internal/schema_shapes.h"

namespace nanochat {

inline constexpr std::int64_t kLongest = 4096;     // of minLength, minItems ...: each is a rule of the grammar
inline constexpr std::size_t kMostOneOf = 100;     // schemas of a oneOf: each is compared with each

inline const Json& everything() {
  static const Json schema = true;
  return schema;
}

inline const Json* member(const Json& node, const std::string& key) {
  if (!node.is_object()) return nullptr;
  const auto found = node.find(key);
  return found == node.end() ? nullptr : &*found;
}

inline bool is_annotation(const std::string& key) {
  static const std::set<std::string> kNames = {
      "title",    "description", "default",     "examples",   "example",        "$schema",  "$id",       "$anchor",
      "$comment", "$defs",       "definitions", "deprecated", "$dynamicAnchor", "readOnly", "writeOnly", "discriminator"};
  return key.starts_with("x-") || kNames.count(key) != 0;
}

// Makes a bound narrower; sign: 1 of a lower bound, -1 of an upper one.
inline void raise(std::optional<Decimal>& low, bool& exclusive, const Decimal& value, bool is_exclusive, int sign) {
  const int order = low ? Decimal::compare(value, *low) * sign : 1;
  if (order > 0) exclusive = is_exclusive;
  if (order == 0) exclusive = exclusive || is_exclusive;
  if (order > 0) low = value;
}
inline void at_least(SchemaShape& shape, const Decimal& value, bool exclusive) {
  raise(shape.numbers.low, shape.numbers.low_exclusive, value, exclusive, 1);
}
inline void at_most(SchemaShape& shape, const Decimal& value, bool exclusive) {
  raise(shape.numbers.high, shape.numbers.high_exclusive, value, exclusive, -1);
}
inline void lower(std::optional<std::int64_t>& most, std::int64_t value) { most = std::min(most.value_or(value), value); }

}  // namespace nanochat
