#include "serving/internal/responses_request.h"

#include <algorithm>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "serving/internal/json_fields.h"
#include "serving/internal/tool_call.h"

namespace nanochat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kUseFormat = "use text.format";

constexpr UnsupportedField kUnsupportedInResponses[] = {
    {"n", "an answer is one message", "[1]"},
    {"messages", "use input"},
    {"max_tokens", "use max_output_tokens", "[]"},
    {"max_completion_tokens", "use max_output_tokens", "[]"},
    {"response_format", kUseFormat, R"([{"type": "text"}])"},
    {"guided_json", kUseFormat},
    {"guided_regex", kUseFormat},
    {"guided_choice", kUseFormat},
    {"guided_grammar", kUseFormat},
    {"structured_outputs", kUseFormat},
    {"grammar", kUseFormat},
    {"regex", kUseFormat},
    {"choice", kUseFormat},
    {"logprobs", "use include and top_logprobs"},
    {"background", "answers are not generated in the background", "[false]"},
    {"conversation", "use previous_response_id"},
    {"session_id", "use previous_response_id"},
    {"prompt", "this server has no stored prompts"},
    {"truncation", "prompts are never cut", R"(["disabled"])"},
    {"context_management", "prompts are never cut"},
    {"moderation", "this server has no moderation"},
};

constexpr UnsupportedField kUnsupportedInReasoning[] = {
    {"effort", "the model does not reason", R"(["none"])"},
    {"summary", "the model does not reason", R"(["auto"])"},
    {"generate_summary", "the model does not reason", R"(["auto"])"},
    {"mode", "the model does not reason", R"(["standard"])"},
};

constexpr UnsupportedField kUnsupportedInText[] = {
    {"verbosity", "the model has one verbosity", R"(["medium"])"},
};

// "content" of a message or "output" of a result: a string or an array of text parts.
std::string parse_text(const JsonFields& item, std::string_view name) {
  const json* value = item.find(name);
  if (value == nullptr) throw ApiError::invalid(item.name_of(name) + ": missing", item.name_of(name));
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) throw item.wrong_type(name, "a string or an array of parts", *value);
  std::string text;
  for (std::size_t i = 0; i < value->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", item.name_of(name), i);
    const JsonFields part((*value)[i], where);
    const std::string type = part.string("type").value_or("");
    if (type != "input_text" && type != "output_text" && type != "text" && type != "refusal") {
      throw ApiError::invalid(
          fmt::format("{}.type: found \"{}\", expected input_text or output_text; this model reads only text", where, type),
          where + ".type", "unsupported");
    }
    const char* member = type == "refusal" ? "refusal" : "text";
    const auto piece = part.string(member);
    if (!piece) throw ApiError::invalid(fmt::format("{}.{}: missing", where, member), fmt::format("{}.{}", where, member));
    text += *piece;
  }
  return text;
}

std::string required_string(const JsonFields& item, const char* name) {
  const auto text = item.string(name);
  if (!text) throw ApiError::invalid(item.name_of(name) + ": missing", item.name_of(name));
  return *text;
}

// Adds items to a history, and to a list in a form without the fields that have no effect, which is what the store keeps.
class ItemReader {
 public:
  explicit ItemReader(ChatHistory& history) : history_(history) {}

  void add(const json& value, const std::string& where) {
    const JsonFields item(value, where);
    const std::string type = item.string("type").value_or("message");
    if (type != "function_call") add_calls();
    if (type == "message") {
      add_message(item, where);
    } else if (type == "function_call") {
      add_call(item);
    } else if (type == "function_call_output") {
      add_result(item);
    } else {
      throw ApiError::invalid(fmt::format("{}.type: found \"{}\", expected message, function_call or function_call_output",
                                          where, type),
                              where + ".type", "unsupported");
    }
  }
  bool ends_with_call() const { return !calls_.empty(); }
  json take_items() { return std::move(items_); }

 private:
  void add_calls() {
    if (!calls_.empty()) history_.add_assistant({}, std::exchange(calls_, {}));
  }
  void add_message(const JsonFields& item, const std::string& where) {
    const std::string role = required_string(item, "role");
    const std::string text = parse_text(item, "content");
    if (role == "system" || role == "developer") {
      history_.add_system(text);
    } else if (role == "user") {
      history_.add_user(text);
    } else if (role == "assistant") {
      history_.add_assistant({{PartType::kText, text}});
    } else {
      throw ApiError::invalid(fmt::format("{}.role: found \"{}\", expected system, developer, user or assistant", where, role),
                              where + ".role");
    }
    items_.push_back({{"role", role}, {"content", text}});
  }
  void add_call(const JsonFields& item) {
    FunctionCall call{.name = required_string(item, "name"),
                      .arguments = required_string(item, "arguments"),
                      .id = required_string(item, "call_id")};
    items_.push_back({{"type", "function_call"}, {"call_id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
    calls_.push_back(std::move(call));
  }
  void add_result(const JsonFields& item) {
    const std::string id = required_string(item, "call_id"), text = parse_text(item, "output");
    history_.add_result({.id = id}, text);
    items_.push_back({{"type", "function_call_output"}, {"call_id", id}, {"output", text}});
  }

  ChatHistory& history_;
  std::vector<FunctionCall> calls_;  // calls that follow each other belong to one message; they wait for the next item
  json items_ = json::array();
};

// The items of the previous response, or none.
json previous_items(const JsonFields& fields, ResponseStore& store, const std::string& owner) {
  const auto id = fields.string("previous_response_id");
  if (!id) return json::array();
  const auto previous = store.find(*id, owner);
  if (previous == nullptr) {
    throw ApiError::invalid(fmt::format("previous_response_id: found \"{}\", expected the id of a stored response", *id),
                            "previous_response_id", "previous_response_not_found");
  }
  return json::parse(previous->items);
}

json input_items(const JsonFields& fields) {
  const json* input = fields.find("input");
  if (input == nullptr) throw ApiError::invalid("input: missing", "input");
  if (input->is_string()) return json::array({{{"role", "user"}, {"content", *input}}});
  if (!input->is_array()) throw fields.wrong_type("input", "a string or an array of items", *input);
  if (input->empty()) throw ApiError::invalid("input: found an empty array, expected at least one item", "input");
  return *input;
}

std::vector<ToolFunction> parse_tools(const json& tools, const ordered_json& in_order) {
  std::vector<ToolFunction> functions;
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    const JsonFields tool(tools[i], where);
    if (const auto type = tool.string("type").value_or(""); type != "function") {
      throw ApiError::invalid(fmt::format("{}.type: found \"{}\", expected \"function\"; this server runs no tools", where,
                                          type),
                              where + ".type", "unsupported");
    }
    functions.push_back(flat_function(tool, in_order.at(i), where, "parameters"));
  }
  return functions;
}

// {"type": "allowed_tools", "mode", "tools": [{"type": "function", "name"}]}
ToolRequest allowed_tools(const JsonFields& choice, const std::vector<ToolFunction>& functions) {
  const json* tools = choice.array("tools");
  if (tools == nullptr) throw ApiError::invalid("tool_choice.tools: missing", "tool_choice.tools");
  std::vector<ToolFunction> allowed;
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const JsonFields tool((*tools)[i], fmt::format("tool_choice.tools[{}]", i));
    allowed.push_back(require_named_function(functions, required_string(tool, "name")).functions.front());
  }
  const std::string mode = choice.string("mode").value_or("");
  if (mode == "required") return require_function(std::move(allowed), mode);
  if (mode == "auto") return {ToolChoice::kAuto, std::move(allowed)};
  throw ApiError::invalid(fmt::format("tool_choice.mode: found \"{}\", expected auto or required", mode), "tool_choice.mode");
}

ToolRequest parse_tool_request(const JsonFields& fields, const ordered_json& in_order) {
  std::vector<ToolFunction> functions;
  if (const json* tools = fields.array("tools")) functions = parse_tools(*tools, in_order.at("tools"));
  const json* value = fields.find("tool_choice");
  if (value == nullptr || !value->is_object()) return parse_tool_choice(value, std::move(functions));
  const JsonFields choice(*value, "tool_choice");
  const std::string type = choice.string("type").value_or("");
  if (type == "allowed_tools") return allowed_tools(choice, functions);
  if (type != "function") {
    throw ApiError::invalid(fmt::format("tool_choice.type: found \"{}\", expected function or allowed_tools", type),
                            "tool_choice.type", "unsupported");
  }
  return require_named_function(functions, required_string(choice, "name"));
}

void parse_text_format(const JsonFields& fields, const ordered_json& in_order, RequestedFormat& request) {
  const json* value = fields.object("text");
  if (value == nullptr) return;
  const JsonFields text(*value, "text");
  refuse_fields(text, kUnsupportedInText);
  const json* wanted = text.object("format");
  if (wanted == nullptr) return;
  const JsonFields format(*wanted, "text.format");
  const std::string type = format.string("type").value_or("");
  if (type == "text") return;
  if (type != "json_object" && type != "json_schema") {
    throw ApiError::invalid(fmt::format("text.format.type: found \"{}\", expected text, json_object or json_schema", type),
                            "text.format.type");
  }
  request.format_field = "text.format";
  request.format = type == "json_schema" ? ResponseFormat::kJsonSchema : ResponseFormat::kJsonObject;
  if (type == "json_object") return;
  format.string("name");
  format.boolean("strict");
  if (format.object("schema") == nullptr) throw ApiError::invalid("text.format.schema: missing", "text.format.schema");
  request.schema = in_order.at("text").at("format").at("schema");
}

// OpenAI's way to ask for log probabilities is an entry of "include"; the other entries name what this server never has.
void parse_logprobs(const JsonFields& fields, GenerationFields& out) {
  const json* include = fields.array("include");
  for (std::size_t i = 0; include != nullptr && i < include->size(); ++i) {
    if (!(*include)[i].is_string()) throw fields.wrong_type("include", "an array of strings", (*include)[i]);
    if ((*include)[i] == "message.output_text.logprobs") out.logprobs = true;
  }
  out.top_logprobs = fields.integer("top_logprobs", 0, kMaxTopLogprobs).value_or(0);
  out.logprobs = out.logprobs || out.top_logprobs > 0;
}

ordered_json settings_of(const JsonFields& fields, const ordered_json& in_order, const ResponsesRequest& request) {
  const auto or_null = [&](const char* name) {
    const json* value = fields.find(name);
    return value == nullptr ? ordered_json() : ordered_json(*value);
  };
  const auto given = [&](const char* name, const ordered_json& otherwise) {
    return fields.find(name) == nullptr ? otherwise : ordered_json(in_order.at(name));
  };
  ordered_json text = given("text", ordered_json::object());
  if (!text.contains("format") || text["format"].is_null()) text["format"] = {{"type", "text"}};
  ordered_json settings;
  settings["instructions"] = or_null("instructions");
  settings["max_output_tokens"] = or_null("max_output_tokens");
  settings["max_tool_calls"] = or_null("max_tool_calls");
  settings["metadata"] = given("metadata", ordered_json::object());
  settings["parallel_tool_calls"] = fields.boolean("parallel_tool_calls").value_or(true);
  settings["previous_response_id"] = or_null("previous_response_id");
  settings["prompt_cache_key"] = or_null("prompt_cache_key");
  settings["reasoning"] = {{"effort", nullptr}, {"summary", nullptr}};
  settings["safety_identifier"] = or_null("safety_identifier");
  settings["service_tier"] = "default";
  settings["store"] = request.store;
  settings["temperature"] = request.fields.sampling.temperature;
  settings["text"] = std::move(text);
  settings["tool_choice"] = given("tool_choice", "auto");
  settings["tools"] = given("tools", ordered_json::array());
  settings["top_logprobs"] = request.fields.top_logprobs;
  settings["top_p"] = request.fields.sampling.top_p;
  settings["truncation"] = "disabled";
  settings["user"] = or_null("user");
  return settings;
}

}  // namespace

ResponsesRequest parse_responses_request(std::string_view text, const RequestDefaults& defaults, ResponseStore& store,
                                         const std::string& owner) {
  const json body = parse_json_object(text);
  const JsonFields fields(body);
  const ordered_json in_order = parse_in_order(text, {"tools", "tool_choice", "text", "metadata"});
  refuse_unsupported(fields, kUnsupportedInResponses);
  if (const json* reasoning = fields.object("reasoning")) {
    refuse_fields(JsonFields(*reasoning, "reasoning"), kUnsupportedInReasoning);
  }
  ResponsesRequest request;
  request.fields = parse_generation_fields(fields, defaults);
  request.fields.max_tokens = fields.integer("max_output_tokens", 1, INT32_MAX);
  parse_logprobs(fields, request.fields);
  request.store = fields.boolean("store").value_or(true);
  request.nanochat_tools = fields.boolean("nanochat_tools");
  fields.string("prompt_cache_key");
  fields.string("safety_identifier");
  fields.integer("max_tool_calls", 0, INT32_MAX);  // of tools that a server runs, of which this one has none
  parse_text_format(fields, in_order, request);
  const std::string tools = use_tools(parse_tool_request(fields, in_order), request);
  ChatHistory history;
  if (const auto instructions = fields.string("instructions")) history.add_system(*instructions);
  ItemReader reader(history);
  for (const json& item : previous_items(fields, store, owner)) reader.add(item, "previous_response_id");
  const json input = input_items(fields);
  for (std::size_t i = 0; i < input.size(); ++i) reader.add(input[i], fmt::format("input[{}]", i));
  request.conversation_field = "input";
  request.conversation = take_conversation(std::move(history), tools, "input", reader.ends_with_call());
  request.items = reader.take_items();
  request.settings = settings_of(fields, in_order, request);
  return request;
}

}  // namespace nanochat
