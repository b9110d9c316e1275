#include "inference/json_schema.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "inference/internal/json_grammar.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;
using Rule = ByteGrammar::Rule;

constexpr std::int64_t kLongest = 4096;  // of minLength, maxLength, minItems and maxItems: each is a rule of the grammar
constexpr int kDeepest = 256;            // schemas within schemas, references followed
constexpr std::size_t kShownBytes = 80;

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw ConfigError(fmt::format("json_schema at {}: {}", where.empty() ? "/" : where, what));
}

// A value as an error shows it; long ones are cut.
std::string shown(const Json& value) {
  const std::string text = value.dump(-1, ' ', true);  // in ASCII: a cut leaves whole characters
  return text.size() <= kShownBytes ? text : text.substr(0, kShownBytes) + "...";
}

// One part of a JSON pointer in a URI: "%20" and then "~1" and "~0" stand for other characters. nullopt: it is malformed.
std::optional<std::string> pointer_part(std::string_view written) {
  std::string decoded, part;
  for (std::size_t i = 0; i < written.size(); ++i) {
    if (written[i] != '%') {
      decoded += written[i];
      continue;
    }
    unsigned char byte = 0;
    if (i + 2 >= written.size()) return std::nullopt;
    const auto [end, error] = std::from_chars(written.data() + i + 1, written.data() + i + 3, byte, 16);
    if (error != std::errc() || end != written.data() + i + 3) return std::nullopt;
    decoded += static_cast<char>(byte);
    i += 2;
  }
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    if (decoded[i] != '~') {
      part += decoded[i];
      continue;
    }
    if (++i == decoded.size() || (decoded[i] != '0' && decoded[i] != '1')) return std::nullopt;
    part += decoded[i] == '0' ? '~' : '/';
  }
  return part;
}

bool has_type(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "number") return value.is_number();
  return value.is_number_integer() || (value.is_number_float() && value.get<double>() == std::floor(value.get<double>()));
}

class Compiler {
 public:
  explicit Compiler(const Json& root) : resources_{&root} {}

  ByteGrammar run() {
    const Rule start = schema(*resources_.front(), "");
    json_.grammar().finish(start);
    return std::move(json_.grammar());
  }

 private:
  Rule schema(const Json& node, const std::string& where) {
    if (node.is_boolean() && node.get<bool>()) return json_.value();
    if (!node.is_object()) refuse(where, fmt::format("found {}, expected a schema: an object", shown(node)));
    if (++depth_ > kDeepest) refuse(where, fmt::format("schemas are nested more than {} deep, references included", kDeepest));
    const bool resource = node.contains("$id") && node["$id"].is_string() && &node != resources_.back();
    if (resource) resources_.push_back(&node);
    const Rule rule = any_schema(node, resource ? node["$id"].get<std::string>() : where);
    if (resource) resources_.pop_back();
    --depth_;
    return rule;
  }

  Rule any_schema(const Json& node, const std::string& where) {
    check_keywords(node, where);
    if (node.contains("$ref")) return reference(node["$ref"], where);
    if (node.contains("const") || node.contains("enum")) return listed_values(node, where);
    if (node.contains("anyOf")) return any_of(node["anyOf"], where + "/anyOf");
    if (node.contains("oneOf")) return one_of(node["oneOf"], where + "/oneOf");
    if (node.contains("allOf")) {
      const Json& all = node["allOf"];
      if (!all.is_array() || all.size() != 1) refuse(where, "keyword 'allOf' is supported with one schema only");
      return schema(all[0], where + "/allOf/0");
    }
    std::vector<Rule> rules;
    for (const std::string& type : types(node, where)) rules.push_back(typed(node, type, where));
    return rules.size() == 1 ? rules.front() : json_.any_of(rules);
  }

  // A schema says one thing here: $ref, anyOf, oneOf or allOf stand alone; const and enum beside each other and a type.
  void check_keywords(const Json& node, const std::string& where) const {
    static const std::set<std::string> annotations = {"title",    "description", "default",      "examples",    "$schema",
                                                      "$id",      "$comment",    "$defs",        "definitions", "deprecated",
                                                      "readOnly", "writeOnly",   "discriminator"};
    static const std::map<std::string, std::string> of_type = {
        {"properties", "object"}, {"required", "object"},          {"additionalProperties", "object"},
        {"items", "array"},       {"minItems", "array"},           {"maxItems", "array"},
        {"minLength", "string"},  {"maxLength", "string"},         {"minimum", "integer"},
        {"maximum", "integer"},   {"exclusiveMinimum", "integer"}, {"exclusiveMaximum", "integer"}};
    static const std::set<std::string> alone = {"$ref", "anyOf", "oneOf", "allOf"};
    static const std::set<std::string> values = {"const", "enum"};
    std::string single;
    for (const auto& [key, value] : node.items()) {
      if (alone.count(key) != 0 || (single.empty() && values.count(key) != 0)) single = key;
    }
    for (const auto& [key, value] : node.items()) {
      if (annotations.count(key) != 0 || key == single) continue;
      const bool known = of_type.count(key) != 0 || alone.count(key) != 0 || values.count(key) != 0 || key == "type";
      if (!known) refuse(where, fmt::format("keyword '{}' is not supported", key));
      if (values.count(single) != 0 && (key == "type" || values.count(key) != 0)) continue;
      if (!single.empty()) refuse(where, fmt::format("keyword '{}' beside '{}' is not supported", key, single));
      const std::vector<std::string> declared = types(node, where);
      if (of_type.count(key) != 0 && std::find(declared.begin(), declared.end(), of_type.at(key)) == declared.end()) {
        refuse(where, fmt::format("keyword '{}' is supported for the type '{}' only", key, of_type.at(key)));
      }
      const bool bound = of_type.count(key) != 0 && of_type.at(key) == "integer";
      if (bound && std::find(declared.begin(), declared.end(), "number") != declared.end()) {
        refuse(where, fmt::format("keyword '{}' is not supported for the type 'number'", key));
      }
    }
  }

  // Without a type: that of the keywords, or all.
  static std::vector<std::string> types(const Json& node, const std::string& where) {
    static const std::vector<std::string> all = {"object", "array", "string", "number", "boolean", "null"};
    if (!node.contains("type")) {
      if (node.contains("properties")) return {"object"};
      if (node.contains("items")) return {"array"};
      return all;
    }
    std::vector<std::string> declared;
    const Json& type = node["type"];
    for (const Json& one : type.is_array() ? type : Json::array({type})) {
      const bool known = one.is_string() &&
                         (one == "integer" || std::find(all.begin(), all.end(), one.get<std::string>()) != all.end());
      if (!known)
        refuse(where, fmt::format("type is {}, expected object, array, string, number, integer, boolean or null", shown(one)));
      // Once each: what a type that is named twice holds would be written twice, and so on inside of it.
      const std::string name = one.get<std::string>();
      if (std::find(declared.begin(), declared.end(), name) == declared.end()) declared.push_back(name);
    }
    if (declared.empty()) refuse(where, "type is an empty list");
    return declared;
  }

  Rule typed(const Json& node, const std::string& type, const std::string& where) {
    if (type == "object") return object(node, where);
    if (type == "array") return array(node, where);
    if (type == "string") {
      const auto [low, high] = lengths(node, "minLength", "maxLength", where);
      return json_.string(low, high);
    }
    if (type == "number") return json_.number();
    if (type == "integer") return integer(node, where);
    if (type == "boolean") return json_.any_of({json_.literal("true"), json_.literal("false")});
    return json_.literal("null");
  }

  static std::pair<std::int64_t, std::optional<std::int64_t>> lengths(const Json& node, const char* least, const char* most,
                                                                      const std::string& where) {
    const auto read = [&](const char* key) -> std::optional<std::int64_t> {
      if (!node.contains(key)) return {};
      if (!node[key].is_number_integer() || node[key].get<std::int64_t>() < 0 || node[key].get<std::int64_t>() > kLongest) {
        refuse(where, fmt::format("{} is {}, supported are integers from 0 to {}", key, shown(node[key]), kLongest));
      }
      return node[key].get<std::int64_t>();
    };
    const std::int64_t low = read(least).value_or(0);
    const std::optional<std::int64_t> high = read(most);
    if (high && *high < low) refuse(where, fmt::format("{} {} is below {} {}", most, *high, least, low));
    return {low, high};
  }

  Rule integer(const Json& node, const std::string& where) {
    std::int64_t low = -JsonGrammar::kLargest, high = JsonGrammar::kLargest;
    const auto bound = [&](const char* key, bool lower, bool exclusive) {
      if (!node.contains(key)) return;
      const double value = node[key].is_number() ? node[key].get<double>() : std::nan("");
      if (!(std::abs(value) <= static_cast<double>(JsonGrammar::kLargest))) {
        refuse(where,
               fmt::format("{} is {}, expected a number of at most {} digits", key, shown(node[key]), JsonGrammar::kDigits));
      }
      const auto whole = static_cast<std::int64_t>(lower ? std::ceil(value) : std::floor(value));
      const bool hit = exclusive && static_cast<double>(whole) == value;
      if (lower)
        low = std::max(low, whole + (hit ? 1 : 0));
      else
        high = std::min(high, whole - (hit ? 1 : 0));
    };
    bound("minimum", true, false);
    bound("maximum", false, false);
    bound("exclusiveMinimum", true, true);
    bound("exclusiveMaximum", false, true);
    if (low > high) refuse(where, fmt::format("no integer is at least {} and at most {}", low, high));
    return json_.integer(low, high);
  }

  // What const and enum list, as far as it has the type that stands beside them.
  Rule listed_values(const Json& node, const std::string& where) {
    const Json values = node.contains("enum") ? node["enum"] : Json::array({node["const"]});
    if (!values.is_array() || values.empty()) refuse(where, "enum is not a list of values");
    const std::vector<std::string> declared = node.contains("type") ? types(node, where) : std::vector<std::string>();
    std::vector<std::string> texts;
    for (const Json& value : values) {
      if (node.contains("const") && value != node["const"]) continue;
      const bool fits = std::any_of(declared.begin(), declared.end(),
                                    [&](const std::string& type) { return has_type(value, type); });
      if (fits || declared.empty()) texts.push_back(value.dump());
    }
    if (texts.empty()) {
      const char* listed = !node.contains("enum") ? "const" : node.contains("const") ? "const and enum" : "enum";
      refuse(where, fmt::format("no value of {} is what the other keywords ask for", listed));
    }
    return json_.any_literal(std::move(texts));
  }

  Rule any_of(const Json& schemas, const std::string& where) {
    if (!schemas.is_array() || schemas.empty()) refuse(where, "expected a list of schemas");
    std::vector<Rule> rules;
    for (std::size_t i = 0; i < schemas.size(); ++i) rules.push_back(schema(schemas[i], fmt::format("{}/{}", where, i)));
    return json_.any_of(rules);
  }

  // The same as anyOf where no value fits two of the schemas: unions that a property tells apart, as Pydantic writes them.
  Rule one_of(const Json& schemas, const std::string& where) {
    constexpr std::size_t kMost = 100;  // each is compared with each
    if (schemas.is_array() && schemas.size() > kMost)
      refuse(where, fmt::format("has {} schemas; at most {} are supported", schemas.size(), kMost));
    for (std::size_t i = 0; schemas.is_array() && i < schemas.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (exclude_each_other(schemas[j], schemas[i], where)) continue;
        refuse(where, fmt::format(
                          "keyword 'oneOf' is supported for schemas that exclude each other, by their types or by the const or "
                          "enum of a property that both require; of {} and {} this cannot be seen",
                          j, i));
      }
    }
    return any_of(schemas, where);
  }

  // What a schema says behind references; null: nothing that can be found.
  const Json* behind_references(const Json& node) const {
    const Json* place = &node;
    for (int hops = 0; place != nullptr && place->is_object() && place->contains("$ref"); ++hops) {
      const Json& reference = (*place)["$ref"];
      place = nullptr;
      for (std::size_t level = resources_.size();
           reference.is_string() && hops < kDeepest && place == nullptr && level-- > 0;) {
        place = find_reference(*resources_[level], reference.get_ref<const std::string&>());
      }
    }
    return place != nullptr && place->is_object() ? place : nullptr;
  }

  static const Json* member(const Json& node, const std::string& key) {
    const auto found = node.is_object() ? node.find(key) : node.end();
    return found == node.end() ? nullptr : &*found;
  }

  // The values that a schema lists; null when it lists none.
  static Json listed(const Json* node) {
    if (node == nullptr) return nullptr;
    if (const Json* value = member(*node, "const")) return Json::array({*value});
    const Json* values = member(*node, "enum");
    return values != nullptr && values->is_array() ? *values : Json();
  }

  // True, too, when there are too many to look.
  static bool share_a_value(const Json& a, const Json& b) {
    constexpr std::size_t kMost = 10'000;
    return a.size() * b.size() > kMost ||
           std::any_of(a.begin(), a.end(), [&](const Json& value) { return std::find(b.begin(), b.end(), value) != b.end(); });
  }

  // Whether no value fits both, as far as types, listed values and those of required properties tell.
  bool exclude_each_other(const Json& one, const Json& other, const std::string& where) const {
    static const std::vector<std::string> kTypes = {"object", "array", "string", "number", "boolean", "null"};
    const Json *a = behind_references(one), *b = behind_references(other);
    if (a == nullptr || b == nullptr) return false;
    const Json values_a = listed(a), values_b = listed(b);
    if (!values_a.is_null() && !values_b.is_null()) return !share_a_value(values_a, values_b);
    const auto may_be = [&](const Json& node, const Json& values, const std::string& type) {
      if (!values.is_null())
        return std::any_of(values.begin(), values.end(), [&](const Json& value) { return has_type(value, type); });
      const std::vector<std::string> declared = node.contains("anyOf") || node.contains("oneOf") || node.contains("allOf")
                                                    ? kTypes
                                                    : types(node, where);
      return std::any_of(declared.begin(), declared.end(),
                         [&](const std::string& of) { return of == type || (of == "integer" && type == "number"); });
    };
    bool objects = false;
    for (const std::string& type : kTypes) {
      if (!may_be(*a, values_a, type) || !may_be(*b, values_b, type)) continue;
      if (type != "object") return false;
      objects = true;
    }
    return !objects || told_apart(*a, *b);
  }

  bool told_apart(const Json& a, const Json& b) const {
    constexpr std::size_t kMost = 1000;
    const Json *required_a = member(a, "required"), *required_b = member(b, "required");
    const auto readable = [&](const Json* required) {
      return required != nullptr && required->is_array() && required->size() <= kMost;
    };
    if (!readable(required_a) || !readable(required_b)) return false;
    const auto values_of = [&](const Json& node, const std::string& name) {
      const Json* properties = member(node, "properties");
      const Json* property = properties == nullptr ? nullptr : member(*properties, name);
      return property == nullptr ? Json() : listed(behind_references(*property));
    };
    for (const Json& name : *required_a) {
      if (!name.is_string()) continue;
      const Json values_a = values_of(a, name.get_ref<const std::string&>());
      if (values_a.is_null() || std::find(required_b->begin(), required_b->end(), name) == required_b->end()) continue;
      const Json values_b = values_of(b, name.get_ref<const std::string&>());
      if (!values_b.is_null() && !share_a_value(values_a, values_b)) return true;
    }
    return false;
  }

  // In the innermost resource (a schema with an $id, or the whole) that has the place. A rule is named before it is
  // written, so that a schema may hold itself.
  Rule reference(const Json& target, const std::string& where) {
    const std::string name = target.is_string() ? target.get<std::string>() : "";
    for (std::size_t level = resources_.size(); level-- > 0;) {
      const Json* found = find_reference(*resources_[level], name);
      if (found == nullptr) continue;
      const auto [place, added] = references_.try_emplace({resources_[level], name}, 0);
      if (!added) return place->second;
      const Rule rule = place->second = json_.grammar().add_rule();
      const std::vector<const Json*> inner = resources_;
      resources_.resize(level + 1);
      json_.grammar().add_alternative(rule, {ByteGrammar::use(schema(*found, name))});
      resources_ = inner;
      return rule;
    }
    refuse(where, fmt::format("$ref is {}, expected a part of this schema such as \"#/$defs/NAME\"", shown(target)));
  }

  Rule array(const Json& node, const std::string& where) {
    const auto [low, high] = lengths(node, "minItems", "maxItems", where);
    return json_.list_of(node.contains("items") ? schema(node["items"], where + "/items") : json_.value(), low, high);
  }

  Rule object(const Json& node, const std::string& where) {
    const Json properties = node.value("properties", Json::object());
    const Json required = node.value("required", Json::array());
    if (!properties.is_object()) refuse(where, "properties is not an object");
    if (!required.is_array()) refuse(where, "required is not a list of names");
    std::set<std::string> declared, needed;
    for (const auto& [name, value] : properties.items()) declared.insert(name);
    for (const Json& name : required) {
      if (!name.is_string() || declared.count(name.get_ref<const std::string&>()) == 0) {
        refuse(where, fmt::format("required names {}, which is not among properties", shown(name)));
      }
      needed.insert(name.get<std::string>());
    }
    const Json additional = node.value("additionalProperties", Json(true));
    if (properties.empty()) {
      if (additional.is_boolean()) return additional.get<bool>() ? json_.object() : json_.literal("{}");
      return json_.map_of(schema(additional, where + "/additionalProperties"));
    }
    if (!additional.is_boolean())
      refuse(where, "keyword 'additionalProperties' with a schema is not supported beside properties");
    return declared_object(properties, needed, where);
  }

  // From the last property on back: what may follow when some property came before, and when none did.
  Rule declared_object(const Json& properties, const std::set<std::string>& required, const std::string& where) {
    ByteGrammar& grammar = json_.grammar();
    struct Property {
      Rule pair;
      bool required;
    };
    std::vector<Property> declared;
    for (const auto& [name, value] : properties.items()) {
      ByteGrammar::Sequence pair;
      grammar.append_literal(pair, Json(name).dump() + ":");
      pair.push_back(ByteGrammar::use(json_.space()));
      pair.push_back(ByteGrammar::use(schema(value, fmt::format("{}/properties/{}", where, name))));
      declared.push_back({grammar.add_rule(), required.count(name) != 0});
      grammar.add_alternative(declared.back().pair, pair);
    }
    const ByteGrammar::Symbol space = ByteGrammar::use(json_.space());
    const auto rule_with = [&](const ByteGrammar::Sequence& first) {
      const Rule rule = grammar.add_rule();
      grammar.add_alternative(rule, first);
      return rule;
    };
    ByteGrammar::Sequence end = {space}, comma;
    grammar.append_literal(end, "}");
    grammar.append_literal(comma, ",");
    comma.push_back(space);
    Rule after_some = rule_with(end), after_none = rule_with(end);
    for (auto property = declared.rbegin(); property != declared.rend(); ++property) {
      ByteGrammar::Sequence next = comma;
      next.insert(next.end(), {ByteGrammar::use(property->pair), ByteGrammar::use(after_some)});
      const Rule some = rule_with(next),
                 none = rule_with({space, ByteGrammar::use(property->pair), ByteGrammar::use(after_some)});
      if (!property->required) {
        grammar.add_alternative(some, {ByteGrammar::use(after_some)});
        grammar.add_alternative(none, {ByteGrammar::use(after_none)});
      }
      after_some = some;
      after_none = none;
    }
    ByteGrammar::Sequence whole;
    grammar.append_literal(whole, "{");
    whole.push_back(ByteGrammar::use(after_none));
    return rule_with(whole);
  }

  std::vector<const Json*> resources_;  // what "#" means, from the whole to the innermost
  JsonGrammar json_;
  std::map<std::pair<const Json*, std::string>, Rule> references_;
  int depth_ = 0;
};

}  // namespace

const Json* find_reference(const Json& root, std::string_view reference) {
  if (!reference.starts_with('#')) return nullptr;
  reference.remove_prefix(1);
  const Json* place = &root;
  while (!reference.empty()) {
    if (reference[0] != '/') return nullptr;
    reference.remove_prefix(1);
    const std::size_t end = std::min(reference.find('/'), reference.size());
    const std::optional<std::string> part = pointer_part(reference.substr(0, end));
    reference.remove_prefix(end);
    if (!part) return nullptr;
    if (place->is_object()) {
      const auto member = place->find(*part);
      if (member == place->end()) return nullptr;
      place = &*member;
    } else if (place->is_array()) {
      std::size_t index = 0;
      const auto [last, error] = std::from_chars(part->data(), part->data() + part->size(), index);
      const bool number = error == std::errc() && last == part->data() + part->size() &&
                          (part->size() == 1 || part->front() != '0');
      if (!number || index >= place->size()) return nullptr;
      place = &(*place)[index];
    } else {
      return nullptr;
    }
  }
  return place;
}

ByteGrammar json_grammar(const Json& schema) { return Compiler(schema).run(); }

ByteGrammar json_object_grammar() {
  JsonGrammar json;
  json.grammar().finish(json.object());
  return std::move(json.grammar());
}

}  // namespace nanochat
