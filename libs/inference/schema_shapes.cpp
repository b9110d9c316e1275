#include "inference/internal/schema_shapes.h"

#include <algorithm>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "inference/internal/json_formats.h"
#include "inference/internal/schema_edits.h"

namespace nanochat {
namespace {

constexpr int kDeepest = 256;
constexpr std::size_t kMostShapes = 2000, kMostBranches = 50'000;
constexpr std::size_t kShownBytes = 80;

// A value as an error shows it; long ones are cut.
std::string shown(const Json& value) {
  const std::string text = value.dump(-1, ' ', true);  // in ASCII: a cut leaves whole characters
  return text.size() <= kShownBytes ? text : text.substr(0, kShownBytes) + "...";
}

// Keywords for values of one type.
unsigned type_of_keyword(const std::string& key) {
  static const std::map<std::string, unsigned> kTypes = {{"properties", kObject},
                                                         {"required", kObject},
                                                         {"additionalProperties", kObject},
                                                         {"patternProperties", kObject},
                                                         {"propertyNames", kObject},
                                                         {"minProperties", kObject},
                                                         {"maxProperties", kObject},
                                                         {"unevaluatedProperties", kObject},
                                                         {"dependentRequired", kObject},
                                                         {"dependentSchemas", kObject},
                                                         {"dependencies", kObject},
                                                         {"items", kArray},
                                                         {"prefixItems", kArray},
                                                         {"additionalItems", kArray},
                                                         {"minItems", kArray},
                                                         {"maxItems", kArray},
                                                         {"uniqueItems", kArray},
                                                         {"contains", kArray},
                                                         {"minContains", kArray},
                                                         {"maxContains", kArray},
                                                         {"unevaluatedItems", kArray},
                                                         {"minLength", kString},
                                                         {"maxLength", kString},
                                                         {"pattern", kString},
                                                         {"format", kString},
                                                         {"contentEncoding", kString},
                                                         {"minimum", kInteger | kFraction},
                                                         {"maximum", kInteger | kFraction},
                                                         {"exclusiveMinimum", kInteger | kFraction},
                                                         {"exclusiveMaximum", kInteger | kFraction},
                                                         {"multipleOf", kInteger | kFraction}};
  const auto found = kTypes.find(key);
  return found == kTypes.end() ? 0 : found->second;
}

bool in_place(const std::string& key) {
  static const std::set<std::string> kNames = {"type",  "const", "enum", "$ref", "$dynamicRef", "allOf",   "anyOf",
                                               "oneOf", "not",   "if",   "then", "else",        "nullable"};
  return kNames.count(key) != 0;
}

void intersect(std::optional<std::vector<Json>>& values, const std::vector<Json>& others) {
  if (!values) {
    values = others;
    return;
  }
  std::erase_if(*values, [&](const Json& value) { return std::find(others.begin(), others.end(), value) == others.end(); });
}

}  // namespace

struct SchemaShapes::Branch {
  SchemaShape shape;
  std::vector<Literal> todo;
  std::vector<Choice> choices;
  std::set<SchemaPart> seen;
};

void SchemaShape::require(const std::string& name) {
  if (required.insert(name).second) required_order.push_back(name);
}

void SchemaShapes::refuse(const Json& node, const std::string& what) const {
  throw ConfigError(fmt::format("schema at {}: {}", index_.path(node), what));
}

void SchemaShapes::leave_out(const Json& node, const std::string& what) {
  if (left_out_.empty()) left_out_ = fmt::format("schema at {}: {}", index_.path(node), what);
}

Conjunction SchemaShapes::conjunction(std::vector<SchemaPart> parts) {
  std::erase_if(parts, [](const SchemaPart& part) {
    if (part.node->is_boolean()) return part.node->get<bool>() != part.negated;
    return part.node->is_object() && part.node->empty() && !part.negated;
  });
  std::set<SchemaPart> seen;
  std::erase_if(parts, [&](const SchemaPart& part) { return !seen.insert(part).second; });
  return parts;
}

const std::vector<SchemaShape>& SchemaShapes::shapes(const Conjunction& all) {
  if (const auto known = known_.find(all); known != known_.end()) return known->second;
  const Json& first = all.empty() ? index_.root() : *all.front().node;
  if (!open_.insert(all).second) refuse(first, "values are listed beside a schema that is part of itself");
  if (++depth_ > kDeepest) refuse(first, fmt::format("schemas are nested more than {} deep, references included", kDeepest));
  Branch branch;
  for (const SchemaPart& part : all) branch.todo.push_back({part, {}, {}});
  std::vector<SchemaShape> out;
  expand(std::move(branch), out);
  --depth_;
  open_.erase(all);
  return known_.emplace(all, std::move(out)).first->second;
}

void SchemaShapes::expand(Branch branch, std::vector<SchemaShape>& out) {
  for (std::size_t i = 0; i < branch.todo.size() && branch.shape.types != 0; ++i) {
    const Literal literal = branch.todo[i];
    add(branch, literal);
  }
  branch.todo.clear();
  const auto too_many = [&] {
    refuse(index_.root(), fmt::format("anyOf, oneOf, not and if make more than {} alternatives of one value", kMostShapes));
  };
  if (++branches_ > kMostBranches) too_many();
  if (branch.shape.types == 0) return;
  if (branch.choices.empty()) {
    if (!finish(branch.shape)) return;
    if (out.size() >= kMostShapes) too_many();
    out.push_back(std::move(branch.shape));
    return;
  }
  // The choice with the fewest options first: what it rules out is not multiplied with the others.
  const auto least = std::min_element(branch.choices.begin(), branch.choices.end(),
                                      [](const Choice& a, const Choice& b) { return a.size() < b.size(); });
  const Choice choice = std::move(*least);
  branch.choices.erase(least);
  for (const Option& option : choice) {
    Branch next = branch;
    if (option.edit) option.edit(next.shape);
    next.todo = option.literals;
    if (next.shape.types != 0) expand(std::move(next), out);
  }
}

void SchemaShapes::add(Branch& branch, const Literal& literal) {
  const Json& node = *literal.part.node;
  const bool negated = literal.part.negated;
  // A schema that asks for itself of the same value has no end.
  if (std::find(literal.path.begin(), literal.path.end(), &node) != literal.path.end()) {
    branch.shape.types = 0;
    return;
  }
  if (!branch.seen.insert(literal.part).second) return;
  if (branch.seen.count({&node, !negated}) != 0) {
    branch.shape.types = 0;
    return;
  }
  if (node.is_boolean()) {
    if (node.get<bool>() == negated) branch.shape.types = 0;
    return;
  }
  if (!node.is_object()) refuse(node, fmt::format("found {}, expected a schema: an object", shown(node)));
  for (const auto& [key, value] : node.items()) {
    if (!is_annotation(key) && !in_place(key) && type_of_keyword(key) == 0)
      refuse(node, fmt::format("keyword '{}' is not supported", key));
  }
  if (negated) {
    branch.choices.push_back(negation(literal));
    return;
  }
  SchemaShape::Owners owners = literal.owners;
  std::vector<const Json*> path = literal.path;
  path.push_back(&node);
  if (node.contains("unevaluatedItems") || node.contains("unevaluatedProperties")) owners.push_back(&node);
  unsigned implied = 0;
  for (const auto& [key, value] : node.items()) {
    implied |= type_of_keyword(key);
    keyword(branch, {&node, path, owners}, key, value);
  }
  if (!node.contains("type")) branch.shape.implied |= implied;
}

unsigned SchemaShapes::type_bits(const Json& node, const Json& type) const {
  static const std::map<std::string, unsigned> kBits = {
      {"object", kObject},   {"array", kArray},           {"string", kString}, {"number", kInteger | kFraction},
      {"integer", kInteger}, {"boolean", kTrue | kFalse}, {"null", kNull}};
  unsigned bits = 0;
  for (const Json& one : type.is_array() ? type : Json::array({type})) {
    const auto found = one.is_string() ? kBits.find(one.get<std::string>()) : kBits.end();
    if (found == kBits.end())
      refuse(node, fmt::format("type is {}, expected object, array, string, number, integer, boolean or null", shown(one)));
    bits |= found->second;
  }
  if (bits == 0) refuse(node, "type is an empty list");
  return bits;
}

const Json* SchemaShapes::target(const Json& node, const std::string& key, const Json& value) const {
  const std::string name = value.is_string() ? value.get<std::string>() : "";
  const Json* found = key == "$ref" ? index_.reference(node, name) : index_.dynamic_reference(node, name);
  if (found == nullptr || !value.is_string()) {
    refuse(node, fmt::format("{} is {}, expected a part of this schema such as \"#/$defs/NAME\"", key, shown(value)));
  }
  return found;
}

const ByteDfa& SchemaShapes::pattern(const Json& node, const std::string& expression, RegexBound bound) {
  const auto [place, added] = automata_.try_emplace({expression, static_cast<int>(bound)});
  if (added) {
    try {
      place->second = compile_regex(expression, RegexScope::kSearch, bound, &regex_steps_);
    } catch (const ConfigError& error) {
      automata_.erase(place);
      refuse(node, fmt::format("keyword 'pattern' with {}: {}", shown(expression), error.what()));
    }
  }
  return place->second;
}

// One keyword that the value must match.
void SchemaShapes::keyword(Branch& branch, const Within& within, const std::string& key, const Json& value) {
  SchemaShape& shape = branch.shape;
  const Json& node = *within.node;
  const SchemaShape::Owners& owners = within.owners;
  const auto literal = [&](const Json& schema, bool negated = false) {
    return Literal{{&schema, negated}, negated ? SchemaShape::Owners() : owners, within.path};
  };
  const auto list = [&]() -> const Json& {
    if (!value.is_array() || value.empty())
      refuse(node, fmt::format("{} is {}, expected a list of schemas", key, shown(value)));
    return value;
  };
  const auto map = [&]() -> const Json& {
    if (!value.is_object()) refuse(node, fmt::format("{} is not an object", key));
    return value;
  };
  const auto names = [&](const Json& written) {
    if (!written.is_array()) refuse(node, fmt::format("{} is not a list of names", key));
    std::vector<std::string> out;
    for (const Json& name : written) {
      if (!name.is_string()) refuse(node, fmt::format("{} names {}, expected a string", key, shown(name)));
      out.push_back(name.get<std::string>());
    }
    return out;
  };
  // Counts above kLongest as upper bounds are lowered: what is made is a part of what is allowed.
  const auto count = [&](bool upper) -> std::int64_t {
    const double number = value.is_number() ? value.get<double>() : -1;
    if (number < 0 || number != std::floor(number) || (!upper && number > static_cast<double>(kLongest))) {
      refuse(node, fmt::format("{} is {}, supported are integers from 0 to {}", key, shown(value), kLongest));
    }
    return static_cast<std::int64_t>(std::min(number, static_cast<double>(kLongest)));
  };
  const auto decimal = [&] {
    const std::optional<Decimal> number = value.is_number() ? Decimal::parse(value.dump()) : std::nullopt;
    if (!number) refuse(node, fmt::format("{} is {}, expected a number", key, shown(value)));
    return *number;
  };
  const auto ordered = [&](const char* low, const char* high) {
    const Json *least = member(node, low), *most = member(node, high);
    if (least == nullptr || most == nullptr || !least->is_number() || !most->is_number()) return;
    if (most->get<double>() < least->get<double>())
      refuse(node, fmt::format("{} {} is below {} {}", high, most->dump(), low, least->dump()));
  };

  if (key == "type") {
    unsigned bits = type_bits(node, value);
    if (const Json* nullable = member(node, "nullable"); nullable != nullptr && *nullable == true) bits |= kNull;
    shape.types &= bits;
    shape.typed = true;
  } else if (key == "nullable") {
    if (!value.is_boolean()) refuse(node, fmt::format("nullable is {}, expected true or false", shown(value)));
    if (value.get<bool>() && !node.contains("type")) refuse(node, "keyword 'nullable' is supported beside 'type' only");
  } else if (key == "const" || key == "enum") {
    if (key == "enum" && (!value.is_array() || value.empty())) refuse(node, "enum is not a list of values");
    const std::vector<Json> values = key == "enum" ? std::vector<Json>(value.begin(), value.end()) : std::vector<Json>{value};
    intersect(shape.values, values);
    shape.typed = true;
  } else if (key == "$ref" || key == "$dynamicRef") {
    branch.todo.push_back(literal(*target(node, key, value)));
  } else if (key == "allOf") {
    for (const Json& one : list()) branch.todo.push_back(literal(one));
  } else if (key == "anyOf") {
    Choice choice;
    for (const Json& one : list()) choice.push_back({{literal(one)}, {}});
    branch.choices.push_back(std::move(choice));
  } else if (key == "oneOf") {
    one_of(branch, within, list());
  } else if (key == "not") {
    branch.todo.push_back(literal(value, true));
  } else if (key == "if") {
    const Json *then = member(node, "then"), *otherwise = member(node, "else");
    if (then == nullptr && otherwise == nullptr) return;
    branch.choices.push_back({{{literal(value), literal(then == nullptr ? everything() : *then)}, {}},
                              {{literal(value, true), literal(otherwise == nullptr ? everything() : *otherwise)}, {}}});
  } else if (key == "minLength") {
    ordered("minLength", "maxLength");
    shape.min_length = std::max(shape.min_length, count(false));
  } else if (key == "maxLength") {
    lower(shape.max_length, count(true));
  } else if (key == "pattern") {
    if (!value.is_string()) refuse(node, fmt::format("pattern is {}, expected a string", shown(value)));
    shape.texts.push_back(&pattern(node, value.get<std::string>(), RegexBound::kCertain));
  } else if (key == "format" || key == "contentEncoding") {
    const std::string name = value.is_string() ? value.get<std::string>() : shown(value);
    const bool known = key == "format" || name == "base64";
    const std::optional<std::string> expression = known ? format_expression(name) : std::nullopt;
    if (!expression) {
      refuse(node, key == "format"
                       ? fmt::format("keyword 'format' with \"{}\" is not supported; supported are {}", name, format_names())
                       : fmt::format("keyword 'contentEncoding' with \"{}\" is not supported; supported is base64", name));
    }
    if (expression->empty()) return;
    const auto [place, added] = automata_.try_emplace({"format " + name, 2});
    if (added) place->second = compile_regex(*expression, RegexScope::kWhole);
    shape.texts.push_back(&place->second);
  } else if (key == "minimum") {
    at_least(shape, decimal(), false);
  } else if (key == "exclusiveMinimum") {
    at_least(shape, decimal(), true);
  } else if (key == "maximum") {
    at_most(shape, decimal(), false);
  } else if (key == "exclusiveMaximum") {
    at_most(shape, decimal(), true);
  } else if (key == "multipleOf") {
    const Decimal number = decimal();
    if (number.zero() || number.negative)
      refuse(node, fmt::format("multipleOf is {}, expected a number above 0", shown(value)));
    shape.numbers.multiples.push_back(number);
  } else if (key == "minItems") {
    ordered("minItems", "maxItems");
    shape.min_items = std::max(shape.min_items, count(false));
  } else if (key == "maxItems") {
    lower(shape.max_items, count(true));
  } else if (key == "uniqueItems") {
    if (!value.is_boolean()) refuse(node, fmt::format("uniqueItems is {}, expected true or false", shown(value)));
    shape.unique = shape.unique || value.get<bool>();
  } else if (key == "items" || key == "prefixItems") {
    if (key == "items" && node.contains("prefixItems")) return;  // both at once, below
    const Json* first = member(node, "prefixItems");
    const Json* rest = member(node, "items");
    if (first == nullptr && rest->is_array()) {  // as drafts before 2020-12 write it
      first = rest;
      rest = member(node, "additionalItems");
    }
    SchemaShape::Items layer;
    layer.owners = owners;
    if (first != nullptr && !first->is_array()) refuse(node, "prefixItems is not a list of schemas");
    for (std::size_t i = 0; first != nullptr && i < first->size(); ++i) layer.first.push_back({&(*first)[i], false});
    if (rest != nullptr) layer.rest = SchemaPart{rest, false};
    shape.items.push_back(std::move(layer));
  } else if (key == "additionalItems") {
    const Json* items = member(node, "items");
    if (items == nullptr || !items->is_array())
      refuse(node, "keyword 'additionalItems' is supported beside a list of 'items' only");
  } else if (key == "contains") {
    SchemaShape::Contains contains{{&value, false}, 1, {}};
    for (const char* bound : {"minContains", "maxContains"}) {
      const Json* number = member(node, bound);
      if (number == nullptr) continue;
      const double most = number->is_number() ? number->get<double>() : -1;
      if (most < 0 || most != std::floor(most) || most > static_cast<double>(kLongest))
        refuse(node, fmt::format("{} is {}, supported are integers from 0 to {}", bound, shown(*number), kLongest));
      if (bound[1] == 'i')
        contains.least = static_cast<std::int64_t>(most);
      else
        contains.most = static_cast<std::int64_t>(most);
    }
    shape.contains.push_back(contains);
  } else if (key == "unevaluatedItems") {
    shape.unevaluated_items.push_back({&node, {&value, false}, owners});
  } else if (key == "unevaluatedProperties") {
    shape.unevaluated_properties.push_back({&node, {&value, false}, owners});
  } else if (key == "properties" || key == "patternProperties" || key == "additionalProperties") {
    const Json *named = member(node, "properties"), *patterns = member(node, "patternProperties"),
               *rest = member(node, "additionalProperties");
    if (key != "additionalProperties") map();
    // One layer for all three, written by the first of them.
    if (key != (named != nullptr ? "properties" : patterns != nullptr ? "patternProperties" : "additionalProperties")) return;
    SchemaShape::Properties layer;
    layer.owners = owners;
    if (named != nullptr) {
      for (const auto& [name, schema] : named->items()) layer.named.emplace_back(name, SchemaPart{&schema, false});
    }
    if (patterns != nullptr) {
      if (!patterns->is_object()) refuse(node, "patternProperties is not an object");
      for (const auto& [expression, schema] : patterns->items()) {
        pattern(node, expression, RegexBound::kCertain);
        layer.patterns.emplace_back(expression, SchemaPart{&schema, false});
      }
    }
    if (rest != nullptr) layer.rest = SchemaPart{rest, false};
    layer.explicit_rest = rest != nullptr && rest->is_object();
    shape.properties.push_back(std::move(layer));
  } else if (key == "required") {
    for (const std::string& name : names(value)) shape.require(name);
  } else if (key == "minProperties") {
    shape.min_properties = std::max(shape.min_properties, count(false));
  } else if (key == "maxProperties") {
    lower(shape.max_properties, count(true));
  } else if (key == "propertyNames") {
    shape.property_names.push_back({&value, false});
  } else if (key == "dependentRequired" || key == "dependentSchemas" || key == "dependencies") {
    for (const auto& [name, needs] : map().items()) {
      const std::string present = name;
      const auto absent = [present](SchemaShape& to) { to.absent.insert(present); };
      if (key == "dependentRequired" || (key == "dependencies" && needs.is_array())) {
        const std::vector<std::string> others = names(needs);
        branch.choices.push_back({{{}, absent}, {{}, [present, others](SchemaShape& to) {
                                                   to.require(present);
                                                   for (const std::string& other : others) to.require(other);
                                                 }}});
      } else {
        branch.choices.push_back({{{}, absent}, {{literal(needs)}, [present](SchemaShape& to) { to.require(present); }}});
      }
    }
  }
}

// Each schema with the others ruled out. Where the others cannot match beside it, as in unions that a property tells apart,
// nothing is left to rule out.
void SchemaShapes::one_of(Branch& branch, const Within& within, const Json& schemas) {
  if (schemas.size() > kMostOneOf)
    refuse(*within.node, fmt::format("oneOf has {} schemas; at most {} are supported", schemas.size(), kMostOneOf));
  Choice choice;
  for (std::size_t i = 0; i < schemas.size(); ++i) {
    Option option{{{{&schemas[i], false}, within.owners, within.path}}, {}};
    for (std::size_t j = 0; j < schemas.size(); ++j) {
      if (i != j && !exclude_each_other(schemas[i], schemas[j]))
        option.literals.push_back({{&schemas[j], true}, {}, within.path});
    }
    choice.push_back(std::move(option));
  }
  branch.choices.push_back(std::move(choice));
}

// ------------------------------------------------------------------------------------------------- the end of a branch

// Adds what unevaluated* ask for, and leaves out values that do not match; false: nothing can match.
bool SchemaShapes::finish(SchemaShape& shape) {
  const auto owned = [](const SchemaShape::Owners& owners, const Json* by) {
    return std::find(owners.begin(), owners.end(), by) != owners.end();
  };
  const auto covered = [&](const auto& all, const auto& one, const auto& layers) {
    for (const auto& other : all) {
      if (other.owner != one.owner && owned(other.owners, one.owner)) return true;
    }
    return std::any_of(layers.begin(), layers.end(),
                       [&](const auto& layer) { return layer.rest.has_value() && owned(layer.owners, one.owner); });
  };
  std::vector<SchemaShape::Properties> more_properties;
  for (const auto& one : shape.unevaluated_properties) {
    if (covered(shape.unevaluated_properties, one, shape.properties)) continue;
    SchemaShape::Properties layer;
    for (const auto& other : shape.properties) {
      if (!owned(other.owners, one.owner)) continue;
      for (const auto& [name, part] : other.named) layer.named.emplace_back(name, SchemaPart{&everything(), false});
      for (const auto& [name, part] : other.patterns) layer.patterns.emplace_back(name, SchemaPart{&everything(), false});
    }
    layer.rest = one.part;
    layer.explicit_rest = one.part.node->is_object();
    more_properties.push_back(std::move(layer));
  }
  shape.properties.insert(shape.properties.end(), more_properties.begin(), more_properties.end());
  std::vector<SchemaShape::Items> more_items;
  for (const auto& one : shape.unevaluated_items) {
    if (covered(shape.unevaluated_items, one, shape.items)) continue;
    SchemaShape::Items layer;
    for (const auto& other : shape.items) {
      if (owned(other.owners, one.owner))
        layer.first.resize(std::max(layer.first.size(), other.first.size()), {&everything(), false});
    }
    layer.rest = one.part;
    more_items.push_back(std::move(layer));
  }
  shape.items.insert(shape.items.end(), more_items.begin(), more_items.end());
  shape.unevaluated_items.clear();
  shape.unevaluated_properties.clear();
  if (std::any_of(shape.required.begin(), shape.required.end(),
                  [&](const std::string& name) { return shape.absent.count(name) != 0; }))
    shape.types &= ~static_cast<unsigned>(kObject);
  if (shape.values) {
    std::vector<Json> values = std::move(*shape.values);
    shape.values.reset();
    std::erase_if(values, [&](const Json& value) { return !fits(value, shape); });
    if (values.empty()) return false;
    shape.values = std::move(values);
  }
  // Where two schemas ask for one property, they may exclude each other: a branch that has ended need not be written.
  constexpr int kLooks = 8;
  if ((shape.types & kObject) != 0 && depth_ < kLooks) {
    for (const std::string& name : shape.required) {
      const Conjunction all = property(shape, name);
      if (all.size() < 2 || open_.count(all) != 0 || !shapes(all).empty()) continue;
      shape.types &= ~static_cast<unsigned>(kObject);
      break;
    }
  }
  return shape.types != 0;
}

// ------------------------------------------------------------------------------------------------- oneOf

const Json* SchemaShapes::behind_references(const Json& node) const {
  const Json* at = &node;
  for (int i = 0; i < kDeepest && at != nullptr; ++i) {
    const Json* name = member(*at, "$ref");
    if (name == nullptr) return at->is_object() ? at : nullptr;
    at = name->is_string() ? index_.reference(*at, name->get_ref<const std::string&>()) : nullptr;
  }
  return nullptr;
}

// Whether no value matches both, as far as types, listed values and those of required properties tell at a glance.
bool SchemaShapes::exclude_each_other(const Json& one, const Json& other) const {
  const Json *a = behind_references(one), *b = behind_references(other);
  if (a == nullptr || b == nullptr) return false;
  constexpr std::size_t kMostPairs = 10'000;
  const auto listed = [&](const Json* node) -> Json {
    if (node == nullptr) return {};
    if (const Json* value = member(*node, "const")) return Json::array({*value});
    const Json* values = member(*node, "enum");
    return values != nullptr && values->is_array() ? *values : Json();
  };
  const auto disjoint = [&](const Json& x, const Json& y) {
    return x.size() * y.size() <= kMostPairs &&
           std::none_of(x.begin(), x.end(), [&](const Json& value) { return std::find(y.begin(), y.end(), value) != y.end(); });
  };
  const auto types = [&](const Json& node) {
    const Json* type = member(node, "type");
    unsigned bits = type == nullptr ? static_cast<unsigned>(kAllTypes) : type_bits(node, *type);
    if (const Json* nullable = member(node, "nullable"); nullable != nullptr && *nullable == true) bits |= kNull;
    return bits;
  };
  const Json values_a = listed(a), values_b = listed(b);
  if (!values_a.is_null() && !values_b.is_null() && disjoint(values_a, values_b)) return true;
  const unsigned shared = types(*a) & types(*b);
  if (shared == 0) return true;
  if (shared != kObject) return false;
  const Json *required_a = member(*a, "required"), *required_b = member(*b, "required");
  constexpr std::size_t kMostNames = 1000;
  const auto readable = [&](const Json* names) { return names != nullptr && names->is_array() && names->size() <= kMostNames; };
  if (!readable(required_a) || !readable(required_b)) return false;
  const auto values_of = [&](const Json& node, const std::string& name) {
    const Json* properties = member(node, "properties");
    const Json* property = properties == nullptr ? nullptr : member(*properties, name);
    return property == nullptr ? Json() : listed(behind_references(*property));
  };
  for (const Json& name : *required_a) {
    if (!name.is_string() || std::find(required_b->begin(), required_b->end(), name) == required_b->end()) continue;
    const Json in_a = values_of(*a, name.get_ref<const std::string&>()),
               in_b = values_of(*b, name.get_ref<const std::string&>());
    if (!in_a.is_null() && !in_b.is_null() && disjoint(in_a, in_b)) return true;
  }
  return false;
}

}  // namespace nanochat
