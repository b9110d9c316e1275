#include "data/conversations.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/format.h"
#include "data/rows.h"

namespace nanochat {
namespace {

using nlohmann::json;

constexpr const char* kForms =
    "a conversation is {\"messages\": [...]}, a bare array of {\"role\", \"content\"}, {\"conversations\": [{\"from\", "
    "\"value\"}, ...]} or {\"instruction\", \"input\", \"output\"}";

// The columns of a .parquet that any form has.
const std::vector<std::string>& columns_of_forms() {
  static const std::vector<std::string> columns = {"messages", "conversations", "instruction", "input",
                                                   "output",   "system",        "history"};
  return columns;
}

const char* name_of(ConversationForm form) {
  switch (form) {
    case ConversationForm::kMessages: return "\"messages\"";
    case ConversationForm::kArray: return "a bare array";
    case ConversationForm::kShareGpt: return "ShareGPT's";
    case ConversationForm::kAlpaca: return "Alpaca's";
  }
  return "";
}

const json* find(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

// Parquet gives every row every column: what a row does not have is null there.
bool has(const json& object, const char* key) {
  const json* value = find(object, key);
  return value != nullptr && !value->is_null();
}

std::string string_of(const json& object, const char* key) {
  const json* value = find(object, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
}

PartType part_type(const json& part, std::size_t number) {
  const std::string type = string_of(part, "type");
  if (type == "text") return PartType::kText;
  if (type == "python") return PartType::kPython;
  if (type == "python_output") return PartType::kPythonOutput;
  throw ConversationError("wrong-part", fmt::format("a part of message {} has the type \"{}\" where text, python or "
                                                    "python_output would be right", number, type));
}

std::vector<MessagePart> content_of(const json* content, const char* key, std::size_t number) {
  if (content == nullptr || content->is_null()) {
    throw ConversationError("empty-content", fmt::format("message {} has no \"{}\"", number, key));
  }
  if (content->is_string()) return {{PartType::kText, content->get<std::string>()}};
  if (!content->is_array()) {
    throw ConversationError("wrong-content", fmt::format("\"{}\" of message {} is JSON {} where a string or a list of parts "
                                                         "would be right", key, number, content->type_name()));
  }
  std::vector<MessagePart> parts;
  for (const json& part : *content) {
    const PartType type = part_type(part, number);
    const json* text = find(part, "text");
    if (text == nullptr || !text->is_string()) {
      throw ConversationError("wrong-part", fmt::format("a part of message {} has no \"text\"", number));
    }
    parts.push_back({type, text->get<std::string>()});
  }
  return parts;
}

std::string share_gpt_role(std::string from) {
  if (from == "human") return "user";
  if (from == "gpt") return "assistant";
  return from;
}

struct MessageKeys {
  const char *list, *role, *content;
};
constexpr MessageKeys kMessageKeys = {"messages", "role", "content"};
constexpr MessageKeys kShareGptKeys = {"conversations", "from", "value"};

Conversation from_messages(const json& messages, const MessageKeys& keys) {
  if (!messages.is_array()) {
    throw ConversationError("no-messages", fmt::format("\"{}\" is JSON {} where a list of messages would be right", keys.list,
                                                       messages.type_name()));
  }
  Conversation conversation;
  for (const json& message : messages) {
    const std::size_t number = conversation.messages.size() + 1;
    std::string role = string_of(message, keys.role);
    if (keys.list == kShareGptKeys.list) role = share_gpt_role(std::move(role));
    conversation.messages.emplace_back(std::move(role), content_of(find(message, keys.content), keys.content, number));
  }
  return conversation;
}

std::string alpaca_text(const json& row, const char* key, bool required) {
  const json* value = find(row, key);
  if (value == nullptr || value->is_null()) {
    if (required) throw ConversationError("empty-content", fmt::format("the row has no \"{}\"", key));
    return {};
  }
  if (!value->is_string()) {
    throw ConversationError("wrong-content", fmt::format("\"{}\" is JSON {} where a string would be right", key, value->type_name()));
  }
  return value->get<std::string>();
}

Conversation from_alpaca(const json& row) {
  Conversation conversation;
  if (const std::string system = alpaca_text(row, "system", false); !system.empty()) {
    conversation.messages.emplace_back("system", system);
  }
  if (has(row, "history")) {
    for (const json& turn : row.at("history")) {
      if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() || !turn[1].is_string()) {
        throw ConversationError("wrong-content", "\"history\" is no list of [question, answer]");
      }
      conversation.messages.emplace_back("user", turn[0].get<std::string>());
      conversation.messages.emplace_back("assistant", turn[1].get<std::string>());
    }
  }
  std::string question = alpaca_text(row, "instruction", true);
  if (const std::string input = alpaca_text(row, "input", false); !input.empty()) question += "\n\n" + input;
  conversation.messages.emplace_back("user", std::move(question));
  conversation.messages.emplace_back("assistant", alpaca_text(row, "output", true));
  return conversation;
}

bool is_tool_part(const MessagePart& part) { return part.type != PartType::kText; }

// What check_conversation finds, under the kind it is of.
void check(const Conversation& conversation) {
  const auto& messages = conversation.messages;
  if (messages.empty()) throw ConversationError("no-messages", "a conversation without messages");
  if (messages.size() == 1 && messages[0].role == "system") {
    throw ConversationError("no-messages", "there is only a system message");
  }
  try {
    check_conversation(conversation);
  } catch (const DataError& error) {
    const bool part = std::any_of(messages.begin(), messages.end(), [](const Message& message) {
      return message.role == "user" && std::any_of(message.parts.begin(), message.parts.end(), is_tool_part);
    });
    throw ConversationError(part ? "wrong-part" : "wrong-role", error.what());
  }
}

bool has_answer(const Conversation& conversation) {
  return std::any_of(conversation.messages.begin(), conversation.messages.end(),
                     [](const Message& message) { return message.role == "assistant"; });
}

nlohmann::ordered_json content_to_json(const Message& message) {
  if (message.parts.empty()) return "";
  if (message.parts.size() == 1 && message.parts[0].type == PartType::kText) return replace_invalid_utf8(message.parts[0].text);
  auto parts = nlohmann::ordered_json::array();
  for (const MessagePart& part : message.parts) {
    const char* type = part.type == PartType::kText ? "text" : part.type == PartType::kPython ? "python" : "python_output";
    parts.push_back({{"type", type}, {"text", replace_invalid_utf8(part.text)}});
  }
  return parts;
}

}  // namespace

std::optional<ConversationForm> conversation_form(const json& row) {
  if (row.is_array()) return ConversationForm::kArray;
  if (has(row, "messages")) return ConversationForm::kMessages;
  if (has(row, "conversations")) return ConversationForm::kShareGpt;
  if (has(row, "instruction") && has(row, "output")) return ConversationForm::kAlpaca;
  return std::nullopt;
}

Conversation parse_conversation(const json& row) {
  const auto form = conversation_form(row);
  if (!form) {
    std::string found = fmt::format("JSON {}", row.type_name());
    if (row.is_object()) {
      found = "the keys";
      for (const auto& item : row.items()) found += (found == "the keys" ? " " : ", ") + item.key();
    }
    throw ConversationError("missing-text", fmt::format("found {}; {}", found, kForms));
  }
  Conversation conversation;
  switch (*form) {
    case ConversationForm::kArray: conversation = from_messages(row, kMessageKeys); break;
    case ConversationForm::kMessages: conversation = from_messages(row.at("messages"), kMessageKeys); break;
    case ConversationForm::kShareGpt: conversation = from_messages(row.at("conversations"), kShareGptKeys); break;
    case ConversationForm::kAlpaca: conversation = from_alpaca(row); break;
  }
  check(conversation);
  return conversation;
}

nlohmann::ordered_json to_json(const Conversation& conversation) {
  auto messages = nlohmann::ordered_json::array();
  for (const Message& message : conversation.messages) {
    messages.push_back({{"role", replace_invalid_utf8(message.role)}, {"content", content_to_json(message)}});
  }
  return {{"messages", std::move(messages)}};
}

std::string ConversationReport::summary() const {
  if (bad == 0) return {};
  return fmt::format("{} of {} rows skipped{}", with_commas(static_cast<std::int64_t>(bad)),
                     with_commas(static_cast<std::int64_t>(rows)), examples.empty() ? "" : ", the first: " + examples[0]);
}

struct ConversationReader::Impl {
  Impl(std::vector<std::filesystem::path> paths, const ConversationOptions& reader_options)
      : files(std::move(paths)), options(reader_options) {}

  bool next(Conversation& conversation) {
    while (reader || file < files.size()) {
      if (!reader) {
        reader = open_rows(files[file], columns_of_forms());
        form.reset();
      }
      while (reader->next(row)) {
        ++report.rows;
        if (take(conversation)) return true;
      }
      reader.reset();
      ++file;
    }
    if (report.rows == report.bad) {
      throw DataError(fmt::format("no conversation in {}{}{}", files.empty() ? "an empty list of files" : files[0].string(),
                                  files.size() > 1 ? fmt::format(" and {} more files", files.size() - 1) : "",
                                  report.bad > 0 ? "; " + report.summary() : ""));
    }
    return false;
  }

  // False when the row is bad and skipped.
  bool take(Conversation& conversation) {
    try {
      if (!row.fault.empty()) throw DataError(row.fault);
      conversation = parse_conversation(row.value);
      const auto found = conversation_form(row.value);
      if (form && found != form) {
        throw DataError(fmt::format("a row in the form {} in a file that begins in the form {}", name_of(*found), name_of(*form)));
      }
      if (options.require_answer && !has_answer(conversation)) {
        throw DataError("no message of the assistant, so there is nothing to learn from");
      }
      form = found;
      return true;
    } catch (const DataError& error) {
      const std::string what = fmt::format("{}: {}", row.where, replace_invalid_utf8(error.what()));
      if (!options.skip_bad) throw DataError(what);
      ++report.bad;
      if (report.examples.size() < options.max_examples) report.examples.push_back(what);
      return false;
    }
  }

  std::vector<std::filesystem::path> files;
  ConversationOptions options;
  ConversationReport report;
  std::unique_ptr<RowReader> reader;
  std::optional<ConversationForm> form;  // of the file
  Row row;
  std::size_t file = 0;
};

ConversationReader::ConversationReader(std::vector<std::filesystem::path> files, const ConversationOptions& options)
    : impl_(std::make_unique<Impl>(std::move(files), options)) {}
ConversationReader::~ConversationReader() = default;
bool ConversationReader::next(Conversation& conversation) { return impl_->next(conversation); }
const std::string& ConversationReader::where() const { return impl_->row.where; }
const ConversationReport& ConversationReader::report() const { return impl_->report; }

std::vector<Conversation> read_conversations(const std::vector<std::string>& paths, const ConversationOptions& options,
                                             ConversationReport* report) {
  ConversationReader reader(expand_row_paths(paths), options);
  std::vector<Conversation> conversations;
  for (Conversation conversation; reader.next(conversation);) conversations.push_back(std::move(conversation));
  if (report != nullptr) *report = reader.report();
  return conversations;
}

}  // namespace nanochat
