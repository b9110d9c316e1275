#include "serving/internal/tool_call.h"

#include <algorithm>
#include <set>

#include <spdlog/fmt/fmt.h>

#include "inference/json_schema.h"
#include "inference/regex.h"
#include "serving/internal/json_fields.h"
#include "tokenizer/chat_history.h"

namespace nanochat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// Whether a schema allows only objects, as far as its keywords say. A malformed schema passes: the grammar reports it.
bool allows_only_objects(const ordered_json& schema, const ordered_json& root, std::set<const ordered_json*>& seen) {
  if (!schema.is_object()) return false;
  if (!seen.insert(&schema).second)
    return true;  // a recursive reference: its other keywords are checked where it was first seen
  if (schema.contains("type")) return schema["type"] == "object";
  if (schema.contains("$ref")) {
    const ordered_json& reference = schema["$ref"];
    const ordered_json* found = reference.is_string() ? find_reference(root, reference.get_ref<const std::string&>()) : nullptr;
    return found == nullptr || allows_only_objects(*found, root, seen);
  }
  for (const char* list : {"anyOf", "oneOf", "allOf"}) {
    if (!schema.contains(list)) continue;
    const ordered_json& schemas = schema[list];
    const auto is_one = [&](const ordered_json& one) { return allows_only_objects(one, root, seen); };
    return !schemas.is_array() || std::all_of(schemas.begin(), schemas.end(), is_one);
  }
  if (schema.contains("const")) return schema["const"].is_object();
  return schema.contains("properties");
}

// The schema of a function's arguments. A function without parameters, or with an empty list of them, takes no arguments.
// `where` is the name in errors.
ordered_json arguments_schema(const ToolFunction& function, const std::string& where) {
  ordered_json schema = function.description.value("parameters", ordered_json());
  if (schema.is_null()) schema = {{"type", "object"}, {"properties", ordered_json::object()}};
  const auto says = [&](const char* keyword) { return schema.contains(keyword); };
  if (!says("type") && !says("$ref") && !says("anyOf") && !says("oneOf") && !says("allOf") && !says("const") && !says("enum"))
    schema["type"] = "object";
  if (std::set<const ordered_json*> seen; !allows_only_objects(schema, schema, seen)) {
    const std::string found = says("type") ? fmt::format("type {}", schema["type"].dump())
                                           : "a schema that allows other values";
    throw ApiError::invalid(fmt::format("{}: found {} for the parameters of \"{}\", expected an object", where, found,
                                        function.name),
                            "tools", "unsupported_schema");
  }
  if (schema.contains("properties") && schema["properties"].empty() && !schema.contains("additionalProperties")) {
    schema["additionalProperties"] = false;
  }
  schema["$id"] = where;  // "#/$defs/x" refers to the parameters, not to the schema of the call around them
  return schema;
}

}  // namespace

std::vector<ToolFunction> parse_tools(const json& tools, const ordered_json& in_order) {
  std::vector<ToolFunction> functions;
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    const JsonFields tool(tools[i], where);
    if (const auto type = tool.string("type").value_or("function"); type != "function") {
      throw ApiError::invalid(fmt::format("{}.type: found \"{}\", expected \"function\"", where, type), where + ".type",
                              "unsupported");
    }
    const json* function = tool.object("function");
    if (function == nullptr) throw ApiError::invalid(where + ".function: missing", where + ".function");
    const JsonFields fields(*function, where + ".function");
    const auto name = fields.string("name");
    if (!name || name->empty()) throw ApiError::invalid(where + ".function.name: missing", where + ".function.name");
    fields.string("description");
    fields.object("parameters");
    fields.boolean("strict");
    functions.push_back({*name, in_order.at(i).at("function"), where + ".function.parameters"});
  }
  return functions;
}

ToolFunction flat_function(const JsonFields& tool, const ordered_json& in_order, const std::string& where, const char* schema) {
  const auto name = tool.string("name");
  if (!name || name->empty()) throw ApiError::invalid(where + ".name: missing", where + ".name");
  ordered_json description = {{"name", *name}};
  if (const auto text = tool.string("description")) description["description"] = *text;
  if (tool.object(schema) != nullptr) description["parameters"] = in_order.at(schema);
  tool.boolean("strict");
  return {*name, std::move(description), where + "." + schema};
}

std::string describe_tools(const std::vector<ToolFunction>& functions) {
  std::vector<ordered_json> descriptions;
  for (const ToolFunction& function : functions) descriptions.push_back(function.description);
  return describe_functions(descriptions);
}

ToolRequest require_function(std::vector<ToolFunction> functions, const std::string& choice) {
  if (functions.empty()) {
    throw ApiError::invalid(fmt::format("tool_choice: found \"{}\", expected at least one function in \"tools\"", choice),
                            "tool_choice");
  }
  return {ToolChoice::kRequired, std::move(functions)};
}

ToolRequest require_named_function(const std::vector<ToolFunction>& functions, const std::string& name) {
  const auto found = std::find_if(functions.begin(), functions.end(),
                                  [&](const ToolFunction& one) { return one.name == name; });
  if (found == functions.end()) {
    throw ApiError::invalid(fmt::format("tool_choice: found \"{}\", expected a function of \"tools\"", name), "tool_choice");
  }
  return {ToolChoice::kRequired, {*found}};
}

ToolRequest parse_tool_choice(const json* value, std::vector<ToolFunction> functions) {
  if (value == nullptr) return {ToolChoice::kAuto, std::move(functions)};
  const std::string name = value->is_string() ? value->get<std::string>() : "";
  if (name == "none") return {ToolChoice::kNone, {}};
  if (name == "auto") return {ToolChoice::kAuto, std::move(functions)};
  if (name == "required") return require_function(std::move(functions), name);
  if (!value->is_object()) {
    throw ApiError::invalid(fmt::format("tool_choice: found {}, expected none, auto, required or an object",
                                        value->is_string() ? value->dump() : std::string(json_kind(*value))),
                            "tool_choice");
  }
  const JsonFields choice(*value, "tool_choice");
  if (const auto type = choice.string("type").value_or(""); type != "function") {
    throw ApiError::invalid(fmt::format("tool_choice.type: found \"{}\", expected \"function\"", type), "tool_choice.type",
                            "unsupported");
  }
  const json* function = choice.object("function");
  const auto wanted = function == nullptr ? std::nullopt : JsonFields(*function, "tool_choice.function").string("name");
  if (!wanted) throw ApiError::invalid("tool_choice.function.name: missing", "tool_choice.function.name");
  return require_named_function(functions, *wanted);
}

ordered_json call_schema(const std::vector<ToolFunction>& functions) {
  ordered_json calls = ordered_json::array();
  for (std::size_t i = 0; i < functions.size(); ++i) {
    ordered_json call = {{"type", "object"}};
    call["properties"]["name"]["const"] = functions[i].name;
    call["properties"]["arguments"] = arguments_schema(functions[i], functions[i].place);
    call["required"] = {"name", "arguments"};
    calls.push_back(std::move(call));
  }
  return {{"anyOf", std::move(calls)}};
}

ByteDfa call_beginning(const std::vector<ToolFunction>& functions) {
  const std::string space = "[ \\t\\r\\n]*";
  std::string names;
  for (const ToolFunction& function : functions) {
    names += names.empty() ? "" : "|";
    for (const char c : json(function.name).dump()) {
      const bool letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c & 0x80) != 0;
      if (!letter) names += '\\';
      names += c;
    }
  }
  const std::string colon = space + ":" + space;
  return compile_regex(space + "\\{" + space + "\"name\"" + colon + "(?:" + names + ")" + space + "," + space +
                           "\"arguments\"" + space + ":",
                       RegexScope::kWhole);
}

ToolCallReader::Content ToolCallReader::push(std::string_view text) {
  Content out;
  for (const char c : text) push_character(c, out);
  return out;
}

void ToolCallReader::push_character(char c, Content& out) {
  switch (place_) {
    case Place::kText:
      if (c == '\n') {
        place_ = Place::kBeginning;
        at_beginning(c, out);
      } else {
        out.text += c;
      }
      break;
    case Place::kBeginning: at_beginning(c, out); break;
    case Place::kBeforeArguments:
      if (c == ' ' || c == '\t' || c == '\r' || c == '\n') break;
      place_ = c == '{' ? Place::kArguments : Place::kEnd;
      if (place_ == Place::kArguments) in_arguments(c, out);
      break;
    case Place::kArguments: in_arguments(c, out); break;
    case Place::kEnd:  // what a model adds to a call, up to its '}'
      if (c == '}') place_ = Place::kBeginning;
      break;
  }
}

std::string ToolCallReader::finish() {
  std::string text = std::exchange(held_, {});
  const bool only_space = text.find_first_not_of(" \t\r\n") == std::string::npos;
  return has_called() && only_space ? "" : text;
}

void ToolCallReader::at_beginning(char c, Content& out) {
  held_ += c;
  state_ = beginning_->next(state_, static_cast<unsigned char>(c));
  if (state_ == ByteDfa::kDead) {
    state_ = beginning_->start();
    const bool new_line = c == '\n';  // where another call may begin
    if (new_line) held_.pop_back();
    out.text += std::exchange(held_, {});
    place_ = Place::kText;
    if (new_line) push_character(c, out);
  } else if (beginning_->accepts(state_)) {
    begin_call(out);
    state_ = beginning_->start();
  }
}

void ToolCallReader::begin_call(Content& out) {
  ++calls_;
  ToolCallPart& call = part(out);
  call.name = json::parse(std::exchange(held_, {}) + "0}").at("name").get<std::string>();
  place_ = Place::kBeforeArguments;
}

void ToolCallReader::in_arguments(char c, Content& out) {
  part(out).arguments += c;
  if (in_string_) {
    in_string_ = escaped_ || c != '"';
    escaped_ = !escaped_ && c == '\\';
  } else if (c == '"') {
    in_string_ = true;
  } else if (c == '{' || c == '[') {
    ++depth_;
  } else if (c == '}' || c == ']') {
    if (--depth_ == 0) place_ = Place::kEnd;
  }
}

// The part of the call that is under way.
ToolCallPart& ToolCallReader::part(Content& out) const {
  if (out.calls.empty() || out.calls.back().index != calls_ - 1) out.calls.push_back({.index = calls_ - 1});
  return out.calls.back();
}

}  // namespace nanochat
