#pragma once
// Functions that a chat request offers: what the model is told of them, and calls of them. A call is an answer
// {"name": ..., "arguments": {...}}, as calls of earlier turns are rendered; where tool_choice wants one, the schema below makes
// sure that it comes.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace nanochat {

// `tools` of a request, checked, with the order of its keys. Throws ApiError (400) naming the field.
struct ToolFunction {
  std::string name;
  nlohmann::ordered_json description;  // "function" as it came
  std::string place;  // where it came from, for errors: "tools[0].function"
};
std::vector<ToolFunction> parse_tools(const nlohmann::json& tools, const nlohmann::ordered_json& in_order);

// For the system message; empty without functions.
std::string describe_tools(const std::vector<ToolFunction>& functions);

enum class ToolChoice { kNone, kAuto, kRequired };
struct ToolRequest {
  ToolChoice choice = ToolChoice::kAuto;
  std::vector<ToolFunction> functions = {};  // kRequired: those of which one is to be called; else those on offer
};
// tool_choice: none, auto, required or {"type": "function", "function": {"name"}}; null is auto. Throws ApiError for any other,
// for a function that is not among `functions`, and for a call that is required of none.
ToolRequest parse_tool_choice(const nlohmann::json* value, std::vector<ToolFunction> functions);

// Of a call of one of the functions. The parameters of each have an $id, so that references mean places inside of them and
// errors name them. Throws ApiError for parameters that are not an object's.
nlohmann::ordered_json call_schema(const std::vector<ToolFunction>& functions);

// What is new of a call: the name once, when it is whole; the JSON of the arguments as it comes.
struct ToolCallPart {
  std::string name = {}, arguments = {};
  bool empty() const { return name.empty() && arguments.empty(); }
};

// Takes such a call apart while its text comes. The text must fit call_schema().
class ToolCallText {
 public:
  ToolCallPart push(std::string_view text);

 private:
  enum class Place { kBeforeName, kName, kBeforeArguments, kArguments };
  Place place_ = Place::kBeforeName;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
  std::string name_;  // as JSON
};

}  // namespace nanochat
