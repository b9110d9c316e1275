#pragma once
// The functions that a chat request offers ("tools"): their description for the model, and the calls that the model answers
// with. A call is a line with the JSON object {"name": ..., "arguments": {...}}. If tool_choice requires a call, the answer is
// constrained to call_schema(); otherwise the model decides, and its calls are found in its text.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/byte_dfa.h"
#include "serving/internal/json_fields.h"

namespace nanochat {

// One function of "tools".
struct ToolFunction {
  std::string name;
  nlohmann::ordered_json description;  // {"name", "description", "parameters"}; in a chat the member "function", unchanged
  std::string place;  // the place of the parameters in the request, for errors: "tools[0].function.parameters"
};
// Checks "tools". `in_order` is the same value with the order of its keys. Throws ApiError (400), which names the field.
std::vector<ToolFunction> parse_tools(const nlohmann::json& tools, const nlohmann::ordered_json& in_order);

// The function of a tool of the form {"name", "description", SCHEMA}. `schema` is the name of the member with the schema of the
// arguments, `where` the place of the tool.
ToolFunction flat_function(const JsonFields& tool, const nlohmann::ordered_json& in_order, const std::string& where,
                           const char* schema);

// The text that describes the functions in the system message; empty if there are none.
std::string describe_tools(const std::vector<ToolFunction>& functions);

enum class ToolChoice { kNone, kAuto, kRequired };
struct ToolRequest {
  ToolChoice choice = ToolChoice::kAuto;
  std::vector<ToolFunction> functions = {};  // the functions that may be called; with kRequired, one of them must be
};
// Parses tool_choice: "none", "auto", "required" or {"type": "function", "function": {"name"}}; nullptr is "auto". Throws
// ApiError for any other value, for a function that is not in `functions`, and for "required" without functions.
ToolRequest parse_tool_choice(const nlohmann::json* value, std::vector<ToolFunction> functions);
// A call of any of the functions; `choice` is the value of tool_choice for errors. A call of the function `name`.
ToolRequest require_function(std::vector<ToolFunction> functions, const std::string& choice);
ToolRequest require_named_function(const std::vector<ToolFunction>& functions, const std::string& name);

// The JSON schema of a call of one of the functions. The parameters of each function get an $id: their references are resolved
// within them, and errors name them. Throws ApiError if the parameters of a function are not an object.
nlohmann::ordered_json call_schema(const std::vector<ToolFunction>& functions);

// The new content of a call: the name, once it is complete, and the next part of the JSON text of the arguments.
struct ToolCallPart {
  std::string name = {}, arguments = {};
  std::int64_t index = 0;  // number of calls of the answer before this one
  std::string id = {};  // "call_" and random digits; with the name. A reader does not set it, the session of the answer does
};

// How a call of one of the functions begins: white space, and then {"name": NAME, "arguments":
ByteDfa call_beginning(const std::vector<ToolFunction>& functions);

// Splits an answer into text and calls while it is generated. A call begins at the beginning of a line, as the system message
// describes it. Everything else is text. Text that may be the beginning of a call is held back until that is decided.
class ToolCallReader {
 public:
  explicit ToolCallReader(std::shared_ptr<const ByteDfa> beginning) : beginning_(std::move(beginning)) {}

  struct Content {
    std::string text = {};
    std::vector<ToolCallPart> calls = {};  // at most one part of each call
  };
  Content push(std::string_view text);
  // Call after the last text. Returns text that was held back and is not a call.
  std::string finish();
  bool has_called() const { return calls_ > 0; }

 private:
  enum class Place { kText, kBeginning, kBeforeArguments, kArguments, kEnd };
  void push_character(char c, Content& out);
  void at_beginning(char c, Content& out);
  void begin_call(Content& out);
  void in_arguments(char c, Content& out);
  ToolCallPart& part(Content& out) const;

  std::shared_ptr<const ByteDfa> beginning_;
  Place place_ = Place::kBeginning;
  ByteDfa::State state_ = 0;  // after held_
  std::string held_;  // may be the beginning of a call
  std::int64_t calls_ = 0;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace nanochat
