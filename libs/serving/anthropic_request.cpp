#include "serving/internal/anthropic_request.h"

#include <utility>

#include <spdlog/fmt/fmt.h>

#include "serving/internal/json_fields.h"
#include "serving/internal/tool_call.h"

namespace nanochat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kOneMessage = "an answer is one message";
constexpr const char* kNoLogprobs = "this protocol has no log probabilities";
constexpr const char* kUseFormat = "use output_config.format";

constexpr UnsupportedField kUnsupportedInMessages[] = {
    {"n", kOneMessage, "[1]"},
    {"stop", "use stop_sequences"},
    {"stream_options", "a stream always has its usage", "[]"},
    {"logprobs", kNoLogprobs},
    {"top_logprobs", kNoLogprobs, "[0]"},
    {"max_completion_tokens", "use max_tokens", "[]"},
    {"response_format", kUseFormat, R"([{"type": "text"}])"},
    {"output_format", kUseFormat, "[]"},
    {"guided_json", kUseFormat},
    {"guided_regex", kUseFormat},
    {"guided_choice", kUseFormat},
    {"guided_grammar", kUseFormat},
    {"structured_outputs", kUseFormat},
    {"grammar", kUseFormat},
    {"regex", kUseFormat},
    {"choice", kUseFormat},
    {"container", "this server runs no tools"},
    {"mcp_servers", "this server runs no tools"},
    {"session_id", "only /v1/chat/completions has it"},
    {"context_management", "prompts are never cut"},
    {"speed", "this server has one speed", R"(["standard"])"},
};

constexpr UnsupportedField kUnsupportedInOutputConfig[] = {
    {"effort", "the model does not reason"},
};

ApiError unsupported_block(const std::string& where, const std::string& type, std::string_view expected) {
  return ApiError::invalid(fmt::format("{}.type: found \"{}\", expected {}; this model reads only text", where, type, expected),
                           where + ".type", "unsupported");
}

std::string text_of(const JsonFields& block, const std::string& where) {
  const auto text = block.string("text");
  if (!text) throw ApiError::invalid(where + ".text: missing", where + ".text");
  return *text;
}

// A member that is a string or an array of text blocks. `separator` is put between the blocks.
std::string parse_text(const JsonFields& parent, std::string_view name, std::string_view separator) {
  const json* value = parent.find(name);
  if (value == nullptr) return {};
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) throw parent.wrong_type(name, "a string or an array of blocks", *value);
  std::string text;
  for (std::size_t i = 0; i < value->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", parent.name_of(name), i);
    const JsonFields block((*value)[i], where);
    const std::string type = block.string("type").value_or("");
    if (type != "text") throw unsupported_block(where, type, "\"text\"");
    text.append(i == 0 ? "" : separator).append(text_of(block, where));
  }
  return text;
}

// A result of a tool. Only a message of the user has results.
void add_result(const JsonFields& block, const std::string& where, ChatHistory& history) {
  const auto id = block.string("tool_use_id");
  if (!id) throw ApiError::invalid(where + ".tool_use_id: missing", where + ".tool_use_id");
  const bool failed = block.boolean("is_error").value_or(false);
  history.add_result({.id = *id}, (failed ? "Error: " : "") + parse_text(block, "content", ""));
}

// A call of a tool. Only a message of the assistant has calls.
FunctionCall parse_call(const JsonFields& block, const ordered_json& in_order, const std::string& where) {
  const auto name = block.string("name");
  if (!name) throw ApiError::invalid(where + ".name: missing", where + ".name");
  if (block.object("input") == nullptr) throw ApiError::invalid(where + ".input: missing", where + ".input");
  return {.name = *name,
          .arguments = in_order.at("input").dump(-1, ' ', false, ordered_json::error_handler_t::replace),
          .id = block.string("id").value_or("")};
}

// Adds a message of user or assistant. Returns whether it has calls.
bool add_blocks(const JsonFields& message, const ordered_json& in_order, const std::string& where, bool user,
                ChatHistory& history) {
  const json* content = message.find("content");
  if (content == nullptr) throw ApiError::invalid(where + ".content: missing", where + ".content");
  if (content->is_string()) {
    const auto& text = content->get_ref<const std::string&>();
    user ? history.add_user(text) : history.add_assistant({{PartType::kText, text}});
    return false;
  }
  if (!content->is_array()) throw message.wrong_type("content", "a string or an array of blocks", *content);
  std::string text;
  bool has_result = false;
  std::vector<FunctionCall> calls;
  for (std::size_t i = 0; i < content->size(); ++i) {
    const std::string place = fmt::format("{}.content[{}]", where, i);
    const JsonFields block((*content)[i], place);
    const std::string type = block.string("type").value_or("");
    if (type == "text") {
      text += text_of(block, place);
    } else if (user && type == "tool_result") {
      if (!text.empty()) history.add_user(std::exchange(text, {}));
      add_result(block, place, history);
      has_result = true;
    } else if (!user && type == "tool_use") {
      calls.push_back(parse_call(block, in_order.at("content").at(i), place));
    } else {
      throw unsupported_block(place, type, user ? "text or tool_result" : "text or tool_use");
    }
  }
  if (!user) history.add_assistant({{PartType::kText, text}}, calls);
  if (user && (!text.empty() || !has_result)) history.add_user(text);
  return !calls.empty();
}

// Returns whether the message has calls of tools.
bool add_message(const json& value, const ordered_json& in_order, std::size_t index, ChatHistory& history) {
  const std::string where = fmt::format("messages[{}]", index);
  const JsonFields message(value, where);
  const auto role = message.string("role");
  if (!role) throw ApiError::invalid(where + ".role: missing", where + ".role");
  if (*role == "user" || *role == "assistant") return add_blocks(message, in_order, where, *role == "user", history);
  if (*role != "system") {
    throw ApiError::invalid(fmt::format("{}.role: found \"{}\", expected user, assistant or system", where, *role),
                            where + ".role");
  }
  if (message.find("content") == nullptr) throw ApiError::invalid(where + ".content: missing", where + ".content");
  history.add_system(parse_text(message, "content", "\n\n"));
  return false;
}

std::vector<ToolFunction> parse_tools(const json& tools, const ordered_json& in_order) {
  std::vector<ToolFunction> functions;
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    const JsonFields tool(tools[i], where);
    if (const auto type = tool.string("type").value_or("custom"); type != "custom") {
      throw ApiError::invalid(fmt::format("{}.type: found \"{}\", expected \"custom\"; this server runs no tools", where, type),
                              where + ".type", "unsupported");
    }
    functions.push_back(flat_function(tool, in_order.at(i), where, "input_schema"));
    if (tool.object("input_schema") == nullptr) {
      throw ApiError::invalid(where + ".input_schema: missing", where + ".input_schema");
    }
  }
  return functions;
}

// Parses tools and tool_choice. disable_parallel_tool_use has no effect: a required call is one, and otherwise the model decides.
ToolRequest parse_tool_request(const JsonFields& fields, const ordered_json& in_order) {
  std::vector<ToolFunction> functions;
  if (const json* tools = fields.array("tools")) functions = parse_tools(*tools, in_order.at("tools"));
  const json* value = fields.object("tool_choice");
  if (value == nullptr) return {ToolChoice::kAuto, std::move(functions)};
  const JsonFields choice(*value, "tool_choice");
  choice.boolean("disable_parallel_tool_use");
  const std::string type = choice.string("type").value_or("");
  if (type == "auto") return {ToolChoice::kAuto, std::move(functions)};
  if (type == "none") return {ToolChoice::kNone, {}};
  if (type == "any") return require_function(std::move(functions), type);
  if (type != "tool") {
    throw ApiError::invalid(fmt::format("tool_choice.type: found \"{}\", expected auto, any, tool or none", type),
                            "tool_choice.type");
  }
  const auto name = choice.string("name");
  if (!name) throw ApiError::invalid("tool_choice.name: missing", "tool_choice.name");
  return require_named_function(functions, *name);
}

void parse_output_config(const JsonFields& fields, const ordered_json& in_order, RequestedFormat& request) {
  const json* value = fields.object("output_config");
  if (value == nullptr) return;
  const JsonFields config(*value, "output_config");
  refuse_fields(config, kUnsupportedInOutputConfig);
  const json* wanted = config.object("format");
  if (wanted == nullptr) return;
  const JsonFields format(*wanted, "output_config.format");
  if (const std::string type = format.string("type").value_or(""); type != "json_schema") {
    throw ApiError::invalid(fmt::format("output_config.format.type: found \"{}\", expected \"json_schema\"", type),
                            "output_config.format.type");
  }
  if (format.object("schema") == nullptr) {
    throw ApiError::invalid("output_config.format.schema: missing", "output_config.format.schema");
  }
  request.format = ResponseFormat::kJsonSchema;
  request.format_field = "output_config.format";
  request.schema = in_order.at("output_config").at("format").at("schema");
}

void check_thinking(const JsonFields& fields) {
  const json* value = fields.object("thinking");
  if (value == nullptr) return;
  const std::string type = JsonFields(*value, "thinking").string("type").value_or("");
  if (type == "disabled" || type == "adaptive") return;
  throw ApiError::invalid(fmt::format("thinking.type: found \"{}\", expected disabled or adaptive; the model does not reason",
                                      type),
                          "thinking.type", "unsupported");
}

}  // namespace

ChatRequest parse_anthropic_request(std::string_view text, const RequestDefaults& defaults, bool count) {
  const json body = parse_json_object(text);
  const JsonFields fields(body);
  const ordered_json in_order = parse_in_order(text, {"messages", "tools", "output_config"},
                                               {"messages", "role", "content", "type", "text", "id", "name", "input",
                                                "tool_use_id", "is_error", "cache_control"});
  refuse_unsupported(fields, kUnsupportedInMessages);
  check_thinking(fields);
  ChatRequest request;
  fields.array("stop_sequences");  // a single string, as in OpenAI's "stop", is refused
  request.fields = parse_generation_fields(fields, defaults, "stop_sequences");
  request.fields.max_tokens = fields.integer("max_tokens", 1, INT32_MAX);
  if (!request.fields.max_tokens && !count) throw ApiError::invalid("max_tokens: missing", "max_tokens");
  request.nanochat_tools = fields.boolean("nanochat_tools");
  parse_output_config(fields, in_order, request);
  const std::string tools = use_tools(parse_tool_request(fields, in_order), request);
  const json* messages = fields.array("messages");
  if (messages == nullptr) throw ApiError::invalid("messages: missing", "messages");
  if (messages->empty()) {
    throw ApiError::invalid("messages: found an empty array, expected at least one message", "messages");
  }
  ChatHistory history;
  history.add_system(parse_text(fields, "system", "\n\n"));
  bool ends_with_call = false;
  for (std::size_t i = 0; i < messages->size(); ++i) {
    ends_with_call = add_message((*messages)[i], in_order.at("messages").at(i), i, history);
  }
  request.conversation = take_conversation(std::move(history), tools, "messages", ends_with_call);
  return request;
}

}  // namespace nanochat
