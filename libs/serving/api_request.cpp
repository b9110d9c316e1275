#include "serving/internal/api_request.h"

#include <spdlog/fmt/fmt.h>

#include "serving/internal/guided_fields.h"
#include "serving/internal/json_fields.h"
#include "serving/internal/tool_call.h"

namespace nanochat {
namespace {

using nlohmann::json;

constexpr const char* kTemplate = "chats are rendered as the model was trained";

constexpr UnsupportedField kUnsupportedInChats[] = {
    {"modalities", "answers are text", R"(["text", ["text"]])"},
    {"audio", "answers are text", "[]"},
    {"web_search_options", "this server has no web search", "[]"},
    {"chat_template", kTemplate},
    {"chat_template_kwargs", kTemplate},
    {"documents", kTemplate},
    {"add_special_tokens", kTemplate},
    {"echo", "only completions have it"},
};

constexpr UnsupportedField kUnsupportedInCompletions[] = {
    {"messages", "only chats have it", "[]"},
    {"tools", "only chats have it"},
    {"tool_choice", "only chats have it", R"(["none", "auto"])"},
    {"nanochat_tools", "only chats have it"},
    {"session_id", "only /v1/chat/completions has it"},
};

// ------------------------------------------------------------------------------------------------- the form of the answer

void parse_response_format(const JsonFields& fields, const nlohmann::ordered_json& in_order, RequestedFormat& request) {
  const json* value = fields.object("response_format");
  if (value == nullptr) return;
  const JsonFields format(*value, "response_format");
  const std::string type = format.string("type").value_or("");
  if (type != "text" && type != "json_object" && type != "json_schema") {
    throw ApiError::invalid(fmt::format("response_format.type: found \"{}\", expected text, json_object or json_schema", type),
                            "response_format.type");
  }
  const json* wrapper = format.object("json_schema");
  const json* schema = format.object("schema");  // the field of llama.cpp's server and others
  for (const auto& [key, member] : value->items()) {
    const bool known = key == "type" || (type == "json_schema" && key == "json_schema") || (type != "text" && key == "schema");
    if (known || member.is_null()) continue;
    const std::string where = "response_format." + key;
    throw ApiError::invalid(fmt::format("{}: is not supported with \"type\": \"{}\"", where, type), where, "unsupported");
  }
  if (type == "text") return;
  request.format_field = "response_format";
  request.format = type == "json_schema" || schema != nullptr ? ResponseFormat::kJsonSchema : ResponseFormat::kJsonObject;
  if (request.format == ResponseFormat::kJsonObject) return;
  if (wrapper != nullptr && schema != nullptr) {
    throw ApiError::invalid("response_format.schema: found schema and json_schema, expected only one of them",
                            "response_format.schema");
  }
  if (wrapper == nullptr && schema == nullptr) {
    throw ApiError::invalid("response_format.json_schema: missing", "response_format.json_schema");
  }
  if (wrapper != nullptr && JsonFields(*wrapper, "response_format.json_schema").object("schema") == nullptr) {
    throw ApiError::invalid("response_format.json_schema.schema: missing", "response_format.json_schema.schema");
  }
  const nlohmann::ordered_json& ordered = in_order.at("response_format");
  request.schema = wrapper != nullptr ? ordered.at("json_schema").at("schema") : ordered.at("schema");
}

// vLLM's field: a schema, or the JSON text of one.
void parse_guided_json(const JsonFields& fields, const nlohmann::ordered_json& in_order, RequestedFormat& request) {
  const json* value = fields.find("guided_json");
  if (value == nullptr) return;
  if (!value->is_object() && !value->is_string())
    throw fields.wrong_type("guided_json", "a schema, or the text of one", *value);
  if (request.format != ResponseFormat::kText) {
    throw ApiError::invalid("guided_json: cannot be combined with response_format", "guided_json");
  }
  request.format = ResponseFormat::kJsonSchema;
  request.format_field = "guided_json";
  if (value->is_object()) {
    request.schema = in_order.at("guided_json");
    return;
  }
  const std::string& text = value->get_ref<const std::string&>();
  parse_json_object(text, false, "guided_json");  // only checks it
  request.schema = parse_in_order(fmt::format("{{\"guided_json\":{}}}", text), {"guided_json"}).at("guided_json");
}

// Parses tools and tool_choice. Returns the description of the functions for the system message.
std::string parse_functions(const JsonFields& fields, const nlohmann::ordered_json& in_order, ChatRequest& request) {
  std::vector<ToolFunction> functions;
  if (const json* tools = fields.array("tools")) functions = parse_tools(*tools, in_order.at("tools"));
  fields.boolean("parallel_tool_calls");  // a required call is one, and otherwise the model decides
  const ToolRequest tools = parse_tool_choice(fields.find("tool_choice"), std::move(functions));
  const bool guided = request.format != ResponseFormat::kText && request.format_field != "response_format";
  if (tools.choice == ToolChoice::kRequired && guided) {
    throw ApiError::invalid(fmt::format("{}: cannot be combined with a call that tool_choice requires", request.format_field),
                            request.format_field);
  }
  return use_tools(tools, request);
}

// vLLM's fields. This server always continues a last message of the assistant, and begins an answer after any other.
void check_continuation(const JsonFields& fields, const ChatRequest& request) {
  const auto continues = fields.boolean("continue_final_message");
  if (continues && *continues != request.continues()) {
    const char* reason = request.continues() ? "false, expected true, because the last message is from the assistant"
                                             : "true, expected a message of the assistant last";
    throw ApiError::invalid(fmt::format("continue_final_message: found {}", reason), "continue_final_message", "unsupported");
  }
  if (!fields.boolean("add_generation_prompt").value_or(true) && !request.continues()) {
    throw ApiError::invalid(fmt::format("add_generation_prompt: is not supported; {}", kTemplate), "add_generation_prompt",
                            "unsupported");
  }
}

}  // namespace

std::string use_tools(const ToolRequest& tools, RequestedFormat& request) {
  if (tools.choice == ToolChoice::kRequired) {
    request.format_field = "tools";
    request.format = ResponseFormat::kToolCall;
    request.schema = call_schema(tools.functions);
  }
  request.functions = tools.functions;
  return describe_tools(tools.functions);
}

ChatRequest parse_chat_request(std::string_view text, const RequestDefaults& defaults,
                               const CompleteHistory& complete_history) {
  const json body = parse_json_object(text);
  const JsonFields fields(body);
  const nlohmann::ordered_json in_order = parse_in_order(text, {"response_format", "guided_json", "tools"});
  refuse_unsupported(fields, kUnsupportedInChats);
  ChatRequest request;
  request.fields = parse_generation_fields(fields, defaults);
  const auto limit = fields.integer("max_tokens", 1, INT32_MAX);
  const auto newer = fields.integer("max_completion_tokens", 1, INT32_MAX);
  request.fields.max_tokens = newer ? newer : limit;
  request.fields.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMaxTopLogprobs);
  if (top.value_or(0) > 0 && !request.fields.logprobs) {
    throw ApiError::invalid("top_logprobs: needs \"logprobs\": true", "top_logprobs");
  }
  request.fields.top_logprobs = top.value_or(0);
  parse_response_format(fields, in_order, request);
  parse_guided_json(fields, in_order, request);
  parse_guided_fields(fields, request);
  request.nanochat_tools = fields.boolean("nanochat_tools");
  const json* messages = fields.array("messages");
  if (messages == nullptr) throw ApiError::invalid("messages: missing", "messages");
  const auto session_id = fields.string("session_id");
  const std::string functions = parse_functions(fields, in_order, request);
  request.conversation = parse_messages(complete_history ? complete_history(session_id, *messages) : *messages, functions);
  check_continuation(fields, request);
  return request;
}

CompletionRequest parse_completion_request(std::string_view text, const RequestDefaults& defaults) {
  const json body = parse_json_object(text);
  const JsonFields fields(body);
  const nlohmann::ordered_json in_order = parse_in_order(text, {"response_format", "guided_json"});
  refuse_unsupported(fields, kUnsupportedInCompletions);
  CompletionRequest request;
  request.fields = parse_generation_fields(fields, defaults);
  parse_response_format(fields, in_order, request);
  parse_guided_json(fields, in_order, request);
  parse_guided_fields(fields, request);
  request.echo = fields.boolean("echo").value_or(false);
  request.add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  request.fields.max_tokens = fields.integer("max_tokens", 0, INT32_MAX).value_or(16);  // the default of OpenAI's API
  if (*request.fields.max_tokens == 0 && !request.echo) {
    throw ApiError::invalid("max_tokens: found 0, expected at least 1, unless \"echo\" is true", "max_tokens", "out_of_range");
  }
  // An integer. Some clients send a boolean, as in chats.
  const json* logprobs = fields.find("logprobs");
  if (logprobs != nullptr && logprobs->is_boolean()) {
    request.fields.logprobs = logprobs->get<bool>();
  } else if (const auto count = fields.integer("logprobs", 0, kMaxTopLogprobs)) {
    request.fields.logprobs = true;
    request.fields.top_logprobs = *count;
  }
  const auto suffix = fields.string("suffix");
  if (suffix && !suffix->empty()) {
    throw ApiError::invalid("suffix: is not supported; this model can only continue text", "suffix", "unsupported");
  }
  const json* prompt = fields.find("prompt");
  if (prompt == nullptr) throw ApiError::invalid("prompt: missing", "prompt");
  if (prompt->is_string()) {
    request.prompts.emplace_back(prompt->get<std::string>());
  } else if (!prompt->is_array() || prompt->empty()) {
    throw fields.wrong_type("prompt", "a string, token ids, or a list of either that is not empty", *prompt);
  } else if (prompt->front().is_number()) {
    request.prompts.emplace_back(parse_token_ids(*prompt, "prompt"));
  } else {
    for (std::size_t i = 0; i < prompt->size(); ++i) {
      const json& one = (*prompt)[i];
      if (one.is_string()) {
        request.prompts.emplace_back(one.get<std::string>());
      } else {
        request.prompts.emplace_back(parse_token_ids(one, fmt::format("prompt[{}]", i)));
      }
    }
  }
  if (static_cast<std::int64_t>(request.prompts.size()) > kMaxChoices / request.fields.n) {
    throw ApiError::invalid(fmt::format("prompt: found {} prompts with n = {}, expected at most {} answers",
                                        request.prompts.size(), request.fields.n, kMaxChoices),
                            "prompt");
  }
  return request;
}

}  // namespace nanochat
