#include "tokenizer/chat_history.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/utf8.h"

namespace nanochat {
namespace {

using nlohmann::json;

constexpr const char* kEmptyLine = "\n\n";

void append(std::string& text, const std::string& more) {
  if (more.empty()) return;
  text += (text.empty() ? "" : kEmptyLine) + more;
}

bool is_text(const MessagePart& part) { return part.type == PartType::kText; }

bool is_empty(const std::vector<MessagePart>& parts) {
  return std::all_of(parts.begin(), parts.end(), [](const MessagePart& part) { return is_text(part) && part.text.empty(); });
}

void append(std::vector<MessagePart>& parts, std::vector<MessagePart> more) {
  if (is_empty(more)) return;
  if (is_empty(parts)) {
    parts = std::move(more);
    return;
  }
  if (!is_text(parts.back())) parts.push_back({PartType::kText, ""});
  parts.back().text += kEmptyLine;
  auto begin = more.begin();
  if (is_text(*begin)) parts.back().text += (begin++)->text;
  std::move(begin, more.end(), std::back_inserter(parts));
}

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

std::string call_text(const FunctionCall& call) {
  const std::string& arguments = call.arguments;
  const bool object = arguments.find_first_not_of(" \t\r\n") == arguments.find('{') && json::accept(arguments);
  return fmt::format("{{\"name\":{},\"arguments\":{}}}", dump(call.name), object ? arguments : dump(arguments));
}

std::string describe_functions(const std::vector<nlohmann::ordered_json>& functions) {
  if (functions.empty()) return {};
  std::string text = "These functions can be called, each described by a line of JSON:";
  for (const nlohmann::ordered_json& function : functions) {
    text += "\n" + function.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  return text;
}

std::vector<MessagePart> with_calculations(const std::string& text, const std::vector<Calculation>& calculations) {
  std::vector<MessagePart> parts;
  std::size_t begin = 0;        // of the text that is in no part yet
  std::int64_t characters = 0;  // of the text before that
  for (const Calculation& calculation : calculations) {
    std::size_t place = begin;
    for (; characters < calculation.offset && place < text.size(); ++characters) {
      place += std::max<std::size_t>(utf8::character_length(std::string_view(text).substr(place)), 1);
    }
    if (place > begin) parts.push_back({PartType::kText, text.substr(begin, place - begin)});
    parts.push_back({PartType::kPython, calculation.expression});
    parts.push_back({PartType::kPythonOutput, calculation.result});
    begin = place;
  }
  if (begin < text.size() || parts.empty()) parts.push_back({PartType::kText, text.substr(begin)});
  return parts;
}

std::vector<Calculation> calculations_of(const std::vector<MessagePart>& parts) {
  std::vector<Calculation> calculations;
  std::int64_t characters = 0;  // of the text so far
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].type == PartType::kText) characters += utf8::count_characters(parts[i].text);
    if (parts[i].type != PartType::kPythonOutput || i == 0 || parts[i - 1].type != PartType::kPython) continue;
    calculations.push_back({parts[i - 1].text, parts[i].text, characters});
  }
  return calculations;
}

void ChatHistory::add_system(const std::string& text, bool learned) {
  append(system_.parts.front().text, text);
  system_.learned = system_.learned && learned;
}

void ChatHistory::add_user(const std::string& text, bool learned) {
  Message message("user", text);
  message.learned = learned;
  add(std::move(message));
}

void ChatHistory::add_assistant(std::vector<MessagePart> parts, const std::vector<FunctionCall>& calls, bool learned) {
  std::string lines;
  for (const FunctionCall& call : calls) lines += (lines.empty() ? "" : "\n") + call_text(call);
  append(parts, {{PartType::kText, lines}});
  if (turns_.empty() || turns_.back().role != "assistant") open_.clear();
  for (const FunctionCall& call : calls) {
    open_.push_back(call);
    if (!call.id.empty()) names_[call.id] = call.name;
  }
  Message message("assistant", std::move(parts));
  message.learned = learned;
  add(std::move(message));
}

void ChatHistory::add_result(const ResultSource& source, const std::string& text, bool learned) {
  const auto call = std::find_if(open_.begin(), open_.end(),
                                 [&](const FunctionCall& one) { return source.id.empty() || one.id == source.id; });
  std::string name = source.name;
  if (name.empty() && !source.id.empty()) {
    const auto called = names_.find(source.id);
    name = called == names_.end() ? source.id : called->second;
  } else if (name.empty() && call != open_.end()) {
    name = call->name;
  }
  if (call != open_.end()) open_.erase(call);
  add_user(name.empty() ? "Result:\n" + text : fmt::format("Result of {}:\n{}", name, text), learned);
}

void ChatHistory::add(Message message) {
  if (turns_.empty() || turns_.back().role != message.role) {
    turns_.push_back(std::move(message));
    return;
  }
  append(turns_.back().parts, std::move(message.parts));
  turns_.back().learned = turns_.back().learned && message.learned;
}

Conversation ChatHistory::take(const std::string& last) && {
  append(system_.parts.front().text, last);
  Conversation conversation;
  if (!is_empty(system_.parts)) conversation.messages.push_back(std::move(system_));
  std::move(turns_.begin(), turns_.end(), std::back_inserter(conversation.messages));
  return conversation;
}

}  // namespace nanochat
