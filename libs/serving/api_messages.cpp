#include <algorithm>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/utf8.h"
#include "serving/internal/api_request.h"
#include "serving/internal/json_fields.h"
#include "tokenizer/chat_history.h"

namespace nanochat {
namespace {

using nlohmann::json;

// "content" is a string or a list of text parts.
std::string parse_content(const JsonFields& message) {
  const json* content = message.find("content");
  if (content == nullptr) return {};
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) throw message.wrong_type("content", "a string or an array of parts", *content);
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", message.name_of("content"), i);
    const JsonFields part((*content)[i], where);
    const std::string type = part.string("type").value_or("");
    if (type != "text" && type != "refusal") {
      throw ApiError::invalid(fmt::format("{}.type: found \"{}\", expected \"text\"; this model reads only text", where, type),
                              where + ".type", "unsupported");
    }
    const auto piece = part.string(type);
    if (!piece) throw ApiError::invalid(fmt::format("{}.{}: missing", where, type), where + "." + type);
    text += *piece;
  }
  return text;
}

FunctionCall parse_call(const JsonFields& function, std::string id) {
  return {.name = function.string("name").value_or(""),
          .arguments = function.string("arguments").value_or("{}"),
          .id = std::move(id)};
}

// The calls in an assistant's message: tool_calls, or its deprecated form function_call.
std::vector<FunctionCall> parse_calls(const JsonFields& message) {
  std::vector<FunctionCall> parsed;
  if (const json* call = message.object("function_call")) {
    parsed.push_back(parse_call(JsonFields(*call, message.name_of("function_call")), {}));
  }
  const json* calls = message.array("tool_calls");
  if (calls == nullptr) return parsed;
  for (std::size_t i = 0; i < calls->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", message.name_of("tool_calls"), i);
    const JsonFields call((*calls)[i], where);
    const json* function = call.object("function");
    if (function == nullptr) throw ApiError::invalid(where + ".function: missing", where + ".function");
    parsed.push_back(parse_call(JsonFields(*function, where + ".function"), call.string("id").value_or("")));
  }
  return parsed;
}

// The calculations of an assistant's message, in the form in which answers list them.
std::vector<Calculation> parse_calculations(const JsonFields& message, const std::string& text) {
  std::vector<Calculation> parsed;
  const json* calculations = message.array("nanochat_calculations");
  const std::int64_t characters = calculations == nullptr ? 0 : utf8::count_characters(text);
  for (std::size_t i = 0; calculations != nullptr && i < calculations->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", message.name_of("nanochat_calculations"), i);
    const JsonFields calculation((*calculations)[i], where);
    const auto expression = calculation.string("expression"), result = calculation.string("result");
    const auto offset = calculation.integer("offset", parsed.empty() ? 0 : parsed.back().offset, INT64_MAX);
    if (!expression || !result || !offset) {
      throw ApiError::invalid(where + ": found an incomplete entry, expected expression, result and offset", where);
    }
    if (*offset > characters) {
      throw ApiError::invalid(fmt::format("{}.offset: found {}, expected at most {}, the characters of the content", where,
                                          *offset, characters),
                              where + ".offset", "out_of_range");
    }
    parsed.push_back({*expression, *result, *offset});
  }
  return parsed;
}

// Returns whether the message has calls of functions.
bool add_message(const json& value, std::size_t index, ChatHistory& history) {
  const std::string where = fmt::format("messages[{}]", index);
  const JsonFields message(value, where);
  const auto role = message.string("role");
  if (!role) throw ApiError::invalid(where + ".role: missing", where + ".role");
  std::string text = parse_content(message);
  if (*role == "system" || *role == "developer") {
    history.add_system(text);
  } else if (*role == "user") {
    history.add_user(text);
  } else if (*role == "assistant") {
    const std::vector<FunctionCall> calls = parse_calls(message);
    history.add_assistant(with_calculations(text, parse_calculations(message, text)), calls);
    return !calls.empty();
  } else if (*role == "tool" || *role == "function") {
    history.add_result({.id = message.string("tool_call_id").value_or(""), .name = message.string("name").value_or("")}, text);
  } else {
    throw ApiError::invalid(fmt::format("{}.role: found \"{}\", expected system, developer, user, assistant or tool", where,
                                        *role),
                            where + ".role");
  }
  return false;
}

bool is_empty(const Message& message) {
  return std::all_of(message.parts.begin(), message.parts.end(),
                     [](const MessagePart& part) { return part.type == PartType::kText && part.text.empty(); });
}

}  // namespace

Conversation parse_messages(const json& messages, const std::string& tools) {
  if (messages.empty()) throw ApiError::invalid("messages: found an empty array, expected at least one message", "messages");
  ChatHistory history;
  bool ends_with_call = false;
  for (std::size_t i = 0; i < messages.size(); ++i) ends_with_call = add_message(messages[i], i, history);
  return take_conversation(std::move(history), tools, "messages", ends_with_call);
}

Conversation take_conversation(ChatHistory history, const std::string& tools, const std::string& field, bool ends_with_call) {
  if (ends_with_call) {
    throw ApiError::invalid(fmt::format("{}: found the call of a function last, expected its result", field), field);
  }
  Conversation conversation = std::move(history).take(tools);
  std::vector<Message>& turns = conversation.messages;
  if (!turns.empty() && turns.back().role == "assistant" && is_empty(turns.back())) turns.pop_back();
  if (turns.empty()) turns.emplace_back("user", "");
  if (turns.size() == 1 && turns.front().role == "system")
    turns.front().role = "user";  // a system message alone becomes the question
  const auto first = turns.begin() + (turns.front().role == "system" ? 1 : 0);
  if (first->role != "user") turns.emplace(first, "user", std::string());
  return conversation;
}

}  // namespace nanochat
