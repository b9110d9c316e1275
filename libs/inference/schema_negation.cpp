// The ways not to match a schema, for SchemaShapes.

#include <algorithm>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "inference/internal/schema_edits.h"

namespace nanochat {

// The ways not to match a schema: one of its keywords does not hold.
SchemaShapes::Choice SchemaShapes::negation(const Literal& literal) {
  const Json& node = *literal.part.node;
  Choice choice;
  std::vector<const Json*> path = literal.path;
  path.push_back(&node);
  for (const auto& [key, value] : node.items()) {
    if (!is_annotation(key)) negate(choice, {&node, path, {}}, key, value);
  }
  return choice;
}

void SchemaShapes::negate(Choice& choice, const Within& within, const std::string& key, const Json& value) {
  const Json& node = *within.node;
  const auto part = [&](const Json& schema, bool negated) { return Literal{{&schema, negated}, {}, within.path}; };
  const auto edit = [&](std::function<void(SchemaShape&)> what) { choice.push_back({{}, std::move(what)}); };
  const auto of_type = [&](unsigned types, std::function<void(SchemaShape&)> what) {
    edit([types, what = std::move(what)](SchemaShape& shape) {
      shape.types &= types;
      shape.typed = true;
      what(shape);
    });
  };
  const auto count = [&]() -> std::int64_t {
    return value.is_number() ? static_cast<std::int64_t>(std::clamp(value.get<double>(), 0.0, static_cast<double>(kLongest)))
                             : 0;
  };
  const auto number = [&] { return value.is_number() ? Decimal::parse(value.dump()).value_or(Decimal()) : Decimal(); };
  const auto drop = [&] { leave_out(node, fmt::format("keyword '{}' is not supported where it must not match", key)); };
  constexpr unsigned kNumber = kInteger | kFraction;

  if (key == "type") {
    const unsigned bits = type_bits(node, value);
    if (bits == kInteger) leave_out(node, "keyword 'type' is not supported where numbers must not be integers");
    edit([bits](SchemaShape& shape) { shape.types &= ~bits; });
  } else if (key == "const" || key == "enum") {
    const Json all = key == "enum" ? value : Json::array({value});
    std::vector<std::string> texts;
    std::vector<Decimal> numbers;
    unsigned without = 0;
    for (const Json& one : all) {
      if (one.is_string()) texts.push_back(one.get<std::string>());
      if (one.is_number()) numbers.push_back(Decimal::parse(one.dump()).value_or(Decimal()));
      if (one.is_boolean()) without |= one.get<bool>() ? kTrue : kFalse;
      if (one.is_null()) without |= kNull;
      if (!one.is_structured()) continue;
      drop();  // other objects and arrays are not made
      without |= one.is_object() ? kObject : kArray;
    }
    std::sort(numbers.begin(), numbers.end(), [](const Decimal& a, const Decimal& b) { return Decimal::compare(a, b) < 0; });
    edit([texts, without, any = !numbers.empty()](SchemaShape& shape) {
      shape.types &= ~(without | (any ? kNumber : 0U));
      shape.excluded_values.insert(shape.excluded_values.end(), texts.begin(), texts.end());
    });
    for (std::size_t i = 0; !numbers.empty() && i <= numbers.size(); ++i) {
      const std::optional<Decimal> low = i == 0 ? std::nullopt : std::optional(numbers[i - 1]);
      const std::optional<Decimal> high = i == numbers.size() ? std::nullopt : std::optional(numbers[i]);
      of_type(kNumber, [low, high](SchemaShape& shape) {
        if (low) at_least(shape, *low, true);
        if (high) at_most(shape, *high, true);
      });
    }
  } else if (key == "$ref" || key == "$dynamicRef") {
    choice.push_back({{part(*target(node, key, value), true)}, {}});
  } else if (key == "allOf" && value.is_array()) {
    for (const Json& one : value) choice.push_back({{part(one, true)}, {}});
  } else if (key == "anyOf" && value.is_array()) {
    Option none;
    for (const Json& one : value) none.literals.push_back(part(one, true));
    choice.push_back(std::move(none));
  } else if (key == "oneOf" && value.is_array()) {
    Option none;
    for (const Json& one : value) none.literals.push_back(part(one, true));
    choice.push_back(std::move(none));
    for (std::size_t i = 0; i < std::min(value.size(), kMostOneOf); ++i) {
      for (std::size_t j = 0; j < i; ++j) choice.push_back({{part(value[i], false), part(value[j], false)}, {}});
    }
  } else if (key == "not") {
    choice.push_back({{part(value, false)}, {}});
  } else if (key == "if") {
    if (const Json* then = member(node, "then")) choice.push_back({{part(value, false), part(*then, true)}, {}});
    if (const Json* otherwise = member(node, "else")) choice.push_back({{part(value, true), part(*otherwise, true)}, {}});
  } else if (key == "minLength") {
    if (count() > 0) of_type(kString, [n = count()](SchemaShape& shape) { lower(shape.max_length, n - 1); });
  } else if (key == "maxLength") {
    if (count() >= kLongest) return drop();
    of_type(kString, [n = count()](SchemaShape& shape) { shape.min_length = std::max(shape.min_length, n + 1); });
  } else if (key == "pattern" && value.is_string()) {
    const ByteDfa* automaton = &pattern(node, value.get<std::string>(), RegexBound::kPossible);
    of_type(kString, [automaton](SchemaShape& shape) { shape.excluded_texts.push_back(automaton); });
  } else if (key == "minimum" || key == "exclusiveMinimum") {
    of_type(kNumber, [n = number(), x = key == "minimum"](SchemaShape& shape) { at_most(shape, n, x); });
  } else if (key == "maximum" || key == "exclusiveMaximum") {
    of_type(kNumber, [n = number(), x = key == "maximum"](SchemaShape& shape) { at_least(shape, n, x); });
  } else if (key == "minItems") {
    if (count() > 0) of_type(kArray, [n = count()](SchemaShape& shape) { lower(shape.max_items, n - 1); });
  } else if (key == "maxItems") {
    if (count() >= kLongest) return drop();
    of_type(kArray, [n = count()](SchemaShape& shape) { shape.min_items = std::max(shape.min_items, n + 1); });
  } else if (key == "items" && !value.is_array()) {
    const Json* first = member(node, "prefixItems");
    const std::size_t place = first != nullptr && first->is_array() ? first->size() : 0;
    of_type(kArray, [place, schema = &value](SchemaShape& shape) {
      shape.min_items = std::max(shape.min_items, static_cast<std::int64_t>(place) + 1);
      SchemaShape::Items layer;
      layer.first.assign(place, {&everything(), false});
      layer.first.push_back({schema, true});
      layer.rest = SchemaPart{&everything(), false};
      shape.items.push_back(std::move(layer));
    });
  } else if (key == "prefixItems" && value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      of_type(kArray, [i, schema = &value[i]](SchemaShape& shape) {
        shape.min_items = std::max(shape.min_items, static_cast<std::int64_t>(i) + 1);
        SchemaShape::Items layer;
        layer.first.assign(i, {&everything(), false});
        layer.first.push_back({schema, true});
        layer.rest = SchemaPart{&everything(), false};
        shape.items.push_back(std::move(layer));
      });
    }
  } else if (key == "contains") {
    const Json* least = member(node, "minContains");
    if (least != nullptr && least->is_number() && least->get<double>() == 0) return;
    of_type(kArray, [schema = &value](SchemaShape& shape) {
      SchemaShape::Items layer;
      layer.rest = SchemaPart{schema, true};
      shape.items.push_back(std::move(layer));
    });
  } else if (key == "properties" && value.is_object()) {
    for (const auto& [name, schema] : value.items()) {
      of_type(kObject, [name = name, schema = &schema](SchemaShape& shape) {
        shape.require(name);
        SchemaShape::Properties layer;
        layer.named.emplace_back(name, SchemaPart{schema, true});
        shape.properties.push_back(std::move(layer));
      });
    }
  } else if (key == "required" && value.is_array()) {
    for (const Json& name : value) {
      if (!name.is_string()) continue;
      of_type(kObject, [name = name.get<std::string>()](SchemaShape& shape) { shape.absent.insert(name); });
    }
  } else if (key == "minProperties") {
    if (count() > 0) of_type(kObject, [n = count()](SchemaShape& shape) { lower(shape.max_properties, n - 1); });
  } else if (key == "maxProperties") {
    if (count() >= kLongest) return drop();
    of_type(kObject, [n = count()](SchemaShape& shape) { shape.min_properties = std::max(shape.min_properties, n + 1); });
  } else if ((key == "dependentRequired" || key == "dependentSchemas") && value.is_object()) {
    for (const auto& [name, needs] : value.items()) {
      if (key == "dependentSchemas") {
        choice.push_back({{part(needs, true)}, [name = name](SchemaShape& shape) {
                            shape.types &= kObject;
                            shape.require(name);
                          }});
        continue;
      }
      for (const Json& other : needs) {
        if (!other.is_string()) continue;
        of_type(kObject, [name = name, other = other.get<std::string>()](SchemaShape& shape) {
          shape.require(name);
          shape.absent.insert(other);
        });
      }
    }
  } else if (key == "uniqueItems" && value == false) {
  } else if (key == "additionalProperties" || key == "unevaluatedProperties" || key == "unevaluatedItems" ||
             key == "propertyNames") {
    if (value != true) drop();
  } else if (key != "then" && key != "else" && key != "minContains" && key != "nullable") {
    drop();
  }
}

}  // namespace nanochat
