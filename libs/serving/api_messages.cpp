#include <map>

#include <fmt/format.h>

#include "serving/api_request.h"
#include "serving/json_fields.h"

namespace nanochat {
namespace {

using nlohmann::json;

// A string, or parts of which each is text.
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
      throw ApiError::invalid(fmt::format("{}.type: expected text, found \"{}\"; this model reads nothing else", where, type),
                              where + ".type", "unsupported");
    }
    const auto piece = part.string(type);
    if (!piece) throw ApiError::invalid(fmt::format("{}.{}: missing", where, type), where + "." + type);
    text += *piece;
  }
  return text;
}

using FunctionNames = std::map<std::string, std::string>;  // by the id of a call

// {"name": "f", "arguments": {...}}: of arguments that are no JSON, which models write too, a string.
std::string call_text(const std::string& name, const std::string& arguments) {
  const bool object = arguments.find_first_not_of(" \t\r\n") == arguments.find('{') && json::accept(arguments);
  return fmt::format("{{\"name\":{},\"arguments\":{}}}", json(name).dump(), object ? arguments : json(arguments).dump());
}

// The calls of an assistant's message, each as call_text().
std::string parse_tool_calls(const JsonFields& message, FunctionNames& names) {
  std::string text;
  const json* calls = message.array("tool_calls");
  if (calls == nullptr) return text;
  for (std::size_t i = 0; i < calls->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", message.name_of("tool_calls"), i);
    const JsonFields call((*calls)[i], where);
    const json* function = call.object("function");
    if (function == nullptr) throw ApiError::invalid(where + ".function: missing", where + ".function");
    const JsonFields fields(*function, where + ".function");
    const std::string name = fields.string("name").value_or("");
    if (const auto id = call.string("id")) names[*id] = name;
    text += (text.empty() ? "" : "\n") + call_text(name, fields.string("arguments").value_or("{}"));
  }
  return text;
}

void append(std::string& text, const std::string& more) {
  if (more.empty()) return;
  text += (text.empty() ? "" : "\n\n") + more;
}

struct ParsedMessage {
  std::string role;  // system, user or assistant
  std::string text;
};

ParsedMessage parse_message(const json& value, std::size_t index, FunctionNames& names) {
  const std::string where = fmt::format("messages[{}]", index);
  const JsonFields message(value, where);
  const auto role = message.string("role");
  if (!role) throw ApiError::invalid(where + ".role: missing", where + ".role");
  std::string text = parse_content(message);
  if (*role == "system" || *role == "developer") return {"system", text};
  if (*role == "user") return {"user", text};
  if (*role == "assistant") {
    append(text, parse_tool_calls(message, names));
    return {"assistant", text};
  }
  if (*role == "tool" || *role == "function") {
    const std::string id = message.string("tool_call_id").value_or("");
    const auto called = names.find(id);
    const std::string name = message.string("name").value_or(called == names.end() ? id : called->second);
    return {"user", name.empty() ? "Result:\n" + text : fmt::format("Result of {}:\n{}", name, text)};
  }
  throw ApiError::invalid(fmt::format("{}.role: expected system, developer, user, assistant or tool, found \"{}\"", where, *role),
                          where + ".role");
}

}  // namespace

Conversation parse_messages(const json& messages, const std::string& tools) {
  if (messages.empty()) throw ApiError::invalid("messages: is empty; expected at least one message", "messages");
  std::string system;
  std::vector<Message> turns;
  FunctionNames names;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    ParsedMessage message = parse_message(messages[i], i, names);
    if (message.role == "system") {
      append(system, message.text);
    } else if (!turns.empty() && turns.back().role == message.role) {
      append(turns.back().parts.front().text, message.text);
    } else {
      turns.emplace_back(message.role, message.text);
    }
  }
  append(system, tools);
  if (turns.empty()) {  // instructions alone: they are what is asked
    turns.emplace_back("user", std::exchange(system, {}));
  }
  if (turns.front().role != "user") {
    throw ApiError::invalid("messages: the first message that is not a system message is the assistant's; expected the user's", "messages");
  }
  if (turns.back().role != "user") {
    throw ApiError::invalid("messages: the last message is the assistant's; expected the user's or a tool's", "messages");
  }
  Conversation conversation;
  if (!system.empty()) conversation.messages.emplace_back("system", system);
  for (Message& turn : turns) conversation.messages.push_back(std::move(turn));
  return conversation;
}

}  // namespace nanochat
