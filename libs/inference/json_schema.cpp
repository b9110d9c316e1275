#include "inference/json_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "inference/json_grammar.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;
using Rule = ByteGrammar::Rule;

constexpr std::int64_t kLongest = 4096;  // of minLength, maxLength, minItems and maxItems: each is a rule of the grammar

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw ConfigError(fmt::format("json_schema at {}: {}", where.empty() ? "/" : where, what));
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
  explicit Compiler(const Json& root) : root_(root) {}

  ByteGrammar run() {
    const Rule start = schema(root_, "");
    json_.grammar().finish(start);
    return std::move(json_.grammar());
  }

 private:
  Rule schema(const Json& node, const std::string& where) {
    if (node.is_boolean() && node.get<bool>()) return json_.value();
    if (!node.is_object()) refuse(where, fmt::format("found {}, expected a schema: an object", node.dump()));
    check_keywords(node, where);
    if (node.contains("$ref")) return reference(node["$ref"], where);
    if (node.contains("const")) return json_.literal(node["const"].dump());
    if (node.contains("enum")) return enumeration(node, where);
    if (node.contains("anyOf")) return any_of(node["anyOf"], where + "/anyOf");
    if (node.contains("allOf")) {
      const Json& all = node["allOf"];
      if (!all.is_array() || all.size() != 1) refuse(where, "keyword 'allOf' is supported with one schema only");
      return schema(all[0], where + "/allOf/0");
    }
    std::vector<Rule> rules;
    for (const std::string& type : types(node, where)) rules.push_back(typed(node, type, where));
    return rules.size() == 1 ? rules.front() : json_.any_of(rules);
  }

  // A schema says one thing here: $ref, const, enum, anyOf or allOf stand alone, but for a type beside an enum.
  void check_keywords(const Json& node, const std::string& where) const {
    static const std::set<std::string> annotations = {"title", "description", "default", "examples", "$schema", "$id", "$comment",
                                                      "$defs", "definitions", "deprecated", "readOnly", "writeOnly"};
    static const std::map<std::string, std::string> of_type = {
        {"properties", "object"}, {"required", "object"}, {"additionalProperties", "object"}, {"items", "array"},
        {"minItems", "array"}, {"maxItems", "array"}, {"minLength", "string"}, {"maxLength", "string"},
        {"minimum", "integer"}, {"maximum", "integer"}, {"exclusiveMinimum", "integer"}, {"exclusiveMaximum", "integer"}};
    static const std::set<std::string> alone = {"$ref", "const", "enum", "anyOf", "allOf"};
    std::string single;
    for (const auto& [key, value] : node.items()) {
      if (alone.count(key) != 0) single = key;
    }
    for (const auto& [key, value] : node.items()) {
      if (annotations.count(key) != 0 || key == single) continue;
      if (key == "type" && (single.empty() || single == "enum")) continue;
      if (of_type.count(key) == 0 && alone.count(key) == 0 && key != "type") refuse(where, fmt::format("keyword '{}' is not supported", key));
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
      const bool known = one.is_string() && (one == "integer" || std::find(all.begin(), all.end(), one.get<std::string>()) != all.end());
      if (!known) refuse(where, fmt::format("type is {}, expected object, array, string, number, integer, boolean or null", one.dump()));
      declared.push_back(one.get<std::string>());
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
        refuse(where, fmt::format("{} is {}, supported are integers from 0 to {}", key, node[key].dump(), kLongest));
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
        refuse(where, fmt::format("{} is {}, expected a number of at most {} digits", key, node[key].dump(), JsonGrammar::kDigits));
      }
      const auto whole = static_cast<std::int64_t>(lower ? std::ceil(value) : std::floor(value));
      const bool hit = exclusive && static_cast<double>(whole) == value;
      if (lower) low = std::max(low, whole + (hit ? 1 : 0));
      else high = std::min(high, whole - (hit ? 1 : 0));
    };
    bound("minimum", true, false);
    bound("maximum", false, false);
    bound("exclusiveMinimum", true, true);
    bound("exclusiveMaximum", false, true);
    if (low > high) refuse(where, fmt::format("no integer is at least {} and at most {}", low, high));
    return json_.integer(low, high);
  }

  Rule enumeration(const Json& node, const std::string& where) {
    const Json& values = node["enum"];
    if (!values.is_array() || values.empty()) refuse(where, "enum is not a list of values");
    std::vector<Rule> rules;
    for (const Json& value : values) {
      bool fits = !node.contains("type");
      if (!fits) {
        for (const std::string& type : types(node, where)) fits = fits || has_type(value, type);
      }
      if (fits) rules.push_back(json_.literal(value.dump()));
    }
    if (rules.empty()) refuse(where, "no value of enum has the type that is asked for");
    return json_.any_of(rules);
  }

  Rule any_of(const Json& schemas, const std::string& where) {
    if (!schemas.is_array() || schemas.empty()) refuse(where, "expected a list of schemas");
    std::vector<Rule> rules;
    for (std::size_t i = 0; i < schemas.size(); ++i) rules.push_back(schema(schemas[i], fmt::format("{}/{}", where, i)));
    return json_.any_of(rules);
  }

  // A rule is named before it is written, so that a schema may hold itself.
  Rule reference(const Json& target, const std::string& where) {
    const std::string name = target.is_string() ? target.get<std::string>() : "";
    if (const auto known = references_.find(name); known != references_.end()) return known->second;
    const bool inside = name == "#" || name.rfind("#/", 0) == 0;
    const Json::json_pointer pointer(inside ? name.substr(1) : "");
    if (!inside || !root_.contains(pointer)) refuse(where, fmt::format("$ref is {}, expected a part of this schema such as \"#/$defs/NAME\"", target.dump()));
    const Rule rule = json_.grammar().add_rule();
    references_[name] = rule;
    json_.grammar().add_alternative(rule, {ByteGrammar::use(schema(root_[pointer], name))});
    return rule;
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
    for (const Json& name : required) {
      if (!name.is_string() || !properties.contains(name.get<std::string>())) {
        refuse(where, fmt::format("required names {}, which is not among properties", name.dump()));
      }
    }
    const Json additional = node.value("additionalProperties", Json(true));
    if (properties.empty()) {
      if (additional.is_boolean()) return additional.get<bool>() ? json_.object() : json_.literal("{}");
      return json_.map_of(schema(additional, where + "/additionalProperties"));
    }
    if (!additional.is_boolean()) refuse(where, "keyword 'additionalProperties' with a schema is not supported beside properties");
    return declared_object(properties, required, where);
  }

  // From the last property on back: what may follow when some property came before, and when none did.
  Rule declared_object(const Json& properties, const Json& required, const std::string& where) {
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
      declared.push_back({grammar.add_rule(), std::find(required.begin(), required.end(), Json(name)) != required.end()});
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
      const Rule some = rule_with(next), none = rule_with({space, ByteGrammar::use(property->pair), ByteGrammar::use(after_some)});
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

  const Json& root_;
  JsonGrammar json_;
  std::map<std::string, Rule> references_;
};

}  // namespace

ByteGrammar json_grammar(const Json& schema) { return Compiler(schema).run(); }

ByteGrammar json_object_grammar() {
  JsonGrammar json;
  json.grammar().finish(json.object());
  return std::move(json.grammar());
}

}  // namespace nanochat
