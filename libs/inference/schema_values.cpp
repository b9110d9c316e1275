// Whether values match shapes, and which texts and values they allow, for SchemaShapes.

#include <algorithm>
#include <map>

#include "core/utf8.h"
#include "inference/internal/schema_shapes.h"

namespace nanochat {
namespace {

unsigned type_of(const Json& value) {
  if (value.is_object()) return kObject;
  if (value.is_array()) return kArray;
  if (value.is_string()) return kString;
  if (value.is_boolean()) return value.get<bool>() ? kTrue : kFalse;
  if (value.is_null()) return kNull;
  const std::optional<Decimal> number = Decimal::parse(value.dump());
  return !number || number->integral() ? kInteger : kFraction;
}

}  // namespace

unsigned SchemaShapes::made_types(const SchemaShape& shape) const {
  const unsigned implied = shape.implied & shape.types;
  return imply_ && !shape.typed && implied != 0 ? implied : shape.types;
}

Conjunction SchemaShapes::item(const SchemaShape& shape, std::size_t place) const {
  std::vector<SchemaPart> parts;
  for (const SchemaShape::Items& layer : shape.items) {
    if (place < layer.first.size()) {
      parts.push_back(layer.first[place]);
    } else if (layer.rest) {
      parts.push_back(*layer.rest);
    }
  }
  return conjunction(std::move(parts));
}

Conjunction SchemaShapes::property(const SchemaShape& shape, const std::string& name) {
  std::vector<SchemaPart> parts;
  for (const SchemaShape::Properties& layer : shape.properties) {
    bool certain = false;
    for (const auto& [declared, part] : layer.named) {
      if (declared != name) continue;
      parts.push_back(part);
      certain = true;
    }
    for (const auto& [expression, part] : layer.patterns) {
      if (pattern(index_.root(), expression, RegexBound::kPossible).matches(name)) parts.push_back(part);
      certain = certain || pattern(index_.root(), expression, RegexBound::kCertain).matches(name);
    }
    if (!certain && layer.rest) parts.push_back(*layer.rest);
  }
  return conjunction(std::move(parts));
}

ByteDfa SchemaShapes::counted(ByteDfa automaton) {
  constexpr std::size_t kMostStates = 500'000;
  if ((text_states_ += automaton.size()) > kMostStates)
    refuse(index_.root(), "keyword 'pattern' with others beside it takes too long to prepare; expected fewer patterns");
  return automaton;
}

ByteDfa SchemaShapes::text(const SchemaShape& shape) {
  ByteDfa all = ByteDfa::any_text();
  for (const ByteDfa* one : shape.texts) all = both(all, *one);
  for (const ByteDfa* one : shape.excluded_texts) all = without(all, *one);
  if (!shape.excluded_values.empty()) all = without(all, ByteDfa::texts(shape.excluded_values));
  if (all.empty() || (shape.min_length == 0 && !shape.max_length)) return all;
  // A state for each place and length: long texts are left out, unless there are only long ones.
  constexpr std::int64_t kLongText = 256, kMore = 64, kStates = 15'000;
  std::optional<std::int64_t> most = shape.max_length;
  if (most) {
    const std::int64_t fitting = std::min(kLongText, kStates / static_cast<std::int64_t>(all.size()));
    most = std::min(*most, std::max({fitting, shape.min_length + kMore, all.shortest() + kMore}));
  }
  return both(all, ByteDfa::length(shape.min_length, most));
}

ByteDfa SchemaShapes::names(const Conjunction& all) {
  ByteDfa out;
  for (const SchemaShape& shape : shapes(all)) {
    if ((shape.types & kString) == 0) continue;
    if (!shape.values) {
      out = ByteDfa::either(out, text(shape));
      continue;
    }
    std::vector<std::string> texts;
    for (const Json& value : *shape.values) {
      if (value.is_string()) texts.push_back(value.get<std::string>());
    }
    out = ByteDfa::either(out, ByteDfa::texts(texts));
  }
  return out;
}

bool SchemaShapes::fits(const Json& value, const Conjunction& all) {
  if (all.empty()) return true;
  const std::vector<SchemaShape>& alternatives = shapes(all);
  return std::any_of(alternatives.begin(), alternatives.end(), [&](const SchemaShape& shape) { return fits(value, shape); });
}

bool SchemaShapes::fits(const Json& value, const SchemaShape& shape) {
  const unsigned type = type_of(value);
  if ((shape.types & type) == 0) return false;
  if (shape.values && std::find(shape.values->begin(), shape.values->end(), value) == shape.values->end()) return false;
  const auto within = [](std::size_t size, std::int64_t least, const std::optional<std::int64_t>& most) {
    return static_cast<std::int64_t>(size) >= least && static_cast<std::int64_t>(size) <= most.value_or(INT64_MAX);
  };
  if (value.is_number()) {
    const std::optional<Decimal> number = Decimal::parse(value.dump());
    return number && shape.numbers.contains(*number);
  }
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    return within(static_cast<std::size_t>(utf8::count_characters(text)), shape.min_length, shape.max_length) &&
           std::all_of(shape.texts.begin(), shape.texts.end(), [&](const ByteDfa* one) { return one->matches(text); }) &&
           std::none_of(shape.excluded_texts.begin(), shape.excluded_texts.end(),
                        [&](const ByteDfa* one) { return one->matches(text); }) &&
           std::find(shape.excluded_values.begin(), shape.excluded_values.end(), text) == shape.excluded_values.end();
  }
  if (value.is_array()) {
    if (!within(value.size(), shape.min_items, shape.max_items)) return false;
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (!fits(value[i], item(shape, i))) return false;
      for (std::size_t j = 0; shape.unique && j < i; ++j) {
        if (value[i] == value[j]) return false;
      }
    }
    return std::all_of(shape.contains.begin(), shape.contains.end(), [&](const SchemaShape::Contains& one) {
      // Items that fit for certain, and those that do not for certain.
      const Conjunction is = conjunction({one.part}), is_not = conjunction({{one.part.node, !one.part.negated}});
      std::int64_t certain = 0, possible = 0;
      for (const Json& item : value) {
        certain += fits(item, is);
        possible += one.most && !(is_not.empty() || fits(item, is_not));
      }
      return certain >= one.least && (!one.most || possible <= *one.most);
    });
  }
  if (!value.is_object()) return true;
  if (!within(value.size(), shape.min_properties, shape.max_properties)) return false;
  for (const std::string& name : shape.required) {
    if (!value.contains(name)) return false;
  }
  const Conjunction names = conjunction(shape.property_names);
  for (const auto& [name, one] : value.items()) {
    if (shape.absent.count(name) != 0 || !fits(one, property(shape, name)) || !fits(Json(name), names)) return false;
  }
  return true;
}

std::optional<std::vector<Json>> SchemaShapes::finite_values(const Conjunction& all, std::size_t most) {
  std::vector<Json> values;
  const auto add = [&](const Json& value) {
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
  };
  if (all.empty()) return {};
  for (const SchemaShape& shape : shapes(all)) {
    if (shape.values) {
      for (const Json& value : *shape.values) add(value);
    } else {
      const unsigned types = made_types(shape);
      if ((types & (kObject | kArray | kString | kFraction)) != 0) return {};
      if ((types & kTrue) != 0) add(true);
      if ((types & kFalse) != 0) add(false);
      if ((types & kNull) != 0) add(nullptr);
      if ((types & kInteger) != 0) {
        if (!shape.numbers.low || !shape.numbers.high) return {};
        const std::int64_t low = shape.numbers.low->scaled_floor(0, JsonGrammar::kLargest),
                           high = shape.numbers.high->scaled_floor(0, JsonGrammar::kLargest);
        if (high - low > static_cast<std::int64_t>(most)) return {};
        for (std::int64_t value = low; value <= high; ++value) {
          if (fits(Json(value), shape)) add(value);
        }
      }
    }
    if (values.size() > most) return {};
  }
  return values;
}

}  // namespace nanochat
