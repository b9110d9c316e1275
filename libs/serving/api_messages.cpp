#include <iterator>
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

std::string parse_function(const JsonFields& function) {
  return call_text(function.string("name").value_or(""), function.string("arguments").value_or("{}"));
}

// The calls of an assistant's message, each as call_text().
std::string parse_tool_calls(const JsonFields& message, FunctionNames& names) {
  std::string text;
  if (const json* call = message.object("function_call")) text = parse_function(JsonFields(*call, message.name_of("function_call")));
  const json* calls = message.array("tool_calls");
  if (calls == nullptr) return text;
  for (std::size_t i = 0; i < calls->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", message.name_of("tool_calls"), i);
    const JsonFields call((*calls)[i], where);
    const json* function = call.object("function");
    if (function == nullptr) throw ApiError::invalid(where + ".function: missing", where + ".function");
    const JsonFields fields(*function, where + ".function");
    if (const auto id = call.string("id")) names[*id] = fields.string("name").value_or("");
    text += (text.empty() ? "" : "\n") + parse_function(fields);
  }
  return text;
}

// The text of an assistant with what its calculator computed where it was, as answers list it in "nanochat_calculations".
std::vector<MessagePart> with_calculations(const JsonFields& message, const std::string& text) {
  std::vector<MessagePart> parts;
  const json* calculations = message.array("nanochat_calculations");
  std::size_t begin = 0;        // of the text that is in no part yet
  std::int64_t characters = 0;  // of the text before that
  for (std::size_t i = 0; calculations != nullptr && i < calculations->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", message.name_of("nanochat_calculations"), i);
    const JsonFields calculation((*calculations)[i], where);
    const auto expression = calculation.string("expression"), result = calculation.string("result");
    const auto offset = calculation.integer("offset", characters, INT64_MAX);
    if (!expression || !result || !offset) {
      throw ApiError::invalid(where + ": expected expression, result and offset, and one of them is missing", where);
    }
    std::size_t place = begin;
    for (; characters < *offset && place < text.size(); ++characters) {
      for (++place; place < text.size() && (text[place] & 0xC0) == 0x80;) ++place;
    }
    if (characters < *offset) {
      throw ApiError::invalid(fmt::format("{}.offset: {} is behind the end of the content, which has {} characters", where, *offset, characters),
                              where + ".offset", "out_of_range");
    }
    if (place > begin) parts.push_back({PartType::kText, text.substr(begin, place - begin)});
    parts.push_back({PartType::kPython, *expression});
    parts.push_back({PartType::kPythonOutput, *result});
    begin = place;
  }
  if (begin < text.size() || parts.empty()) parts.push_back({PartType::kText, text.substr(begin)});
  return parts;
}

void append(std::string& text, const std::string& more) {
  if (more.empty()) return;
  text += (text.empty() ? "" : "\n\n") + more;
}

// Behind what is there, with an empty line between as append() puts it.
void append(std::vector<MessagePart>& parts, std::vector<MessagePart> more) {
  const auto empty = [](const std::vector<MessagePart>& some) { return some.size() == 1 && some[0] == MessagePart{}; };
  if (empty(more)) return;
  if (empty(parts)) {
    parts = std::move(more);
    return;
  }
  if (parts.back().type != PartType::kText) parts.emplace_back();
  parts.back().text += "\n\n";
  if (more.front().type == PartType::kText) {
    parts.back().text += more.front().text;
    more.erase(more.begin());
  }
  parts.insert(parts.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

struct ParsedMessage {
  std::string role;  // system, user or assistant
  std::vector<MessagePart> parts;

  ParsedMessage(std::string from, std::vector<MessagePart> content) : role(std::move(from)), parts(std::move(content)) {}
  ParsedMessage(std::string from, std::string text) : role(std::move(from)), parts{{PartType::kText, std::move(text)}} {}
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
    std::vector<MessagePart> parts = with_calculations(message, text);
    append(parts, {{PartType::kText, parse_tool_calls(message, names)}});
    return {"assistant", std::move(parts)};
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
      append(system, message.parts.front().text);
    } else if (!turns.empty() && turns.back().role == message.role) {
      append(turns.back().parts, std::move(message.parts));
    } else {
      turns.emplace_back(message.role, std::move(message.parts));
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
