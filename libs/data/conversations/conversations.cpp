#include "data/conversations/conversations.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/format.h"
#include "core/log.h"
#include "data/rows/rows.h"

namespace nanochat {
namespace {

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

bool has_answer(const Conversation& conversation) {
  return std::any_of(conversation.messages.begin(), conversation.messages.end(),
                     [](const Message& message) { return message.role == "assistant"; });
}

std::string describe(const UnreadKeys& keys) {
  std::vector<std::string> parts;
  for (const auto& [key, count] : keys)
    parts.push_back(fmt::format("{} ({} times)", key, with_commas(static_cast<std::int64_t>(count))));
  return fmt::format("{}", fmt::join(parts, ", "));
}

nlohmann::ordered_json to_json(const Conversation& conversation) {
  auto messages = nlohmann::ordered_json::array();
  for (const Message& message : conversation.messages) {
    nlohmann::ordered_json& one = messages.emplace_back();
    one = {{"role", replace_invalid_utf8(message.role)}, {"content", content_to_json(message)}};
    if (!message.learned) one["weight"] = 0;
  }
  return {{"messages", std::move(messages)}};
}

std::string ConversationReport::summary() const {
  if (bad == 0) return {};
  return fmt::format("{} of {} rows skipped{}", with_commas(static_cast<std::int64_t>(bad)),
                     with_commas(static_cast<std::int64_t>(rows)), examples.empty() ? "" : ", the first: " + examples[0]);
}

void log_report(const ConversationReport& report, const std::string& name) {
  const std::string prefix = name.empty() ? "" : name + ": ";
  if (report.bad > 0) log_warn("{}{}", prefix, report.summary());
  if (!report.unread.empty()) log_info("{}keys that are not read: {}", prefix, describe(report.unread));
}

struct ConversationReader::Impl {
  Impl(std::vector<std::filesystem::path> paths, const ConversationOptions& reader_options)
      : files(std::move(paths)), options(reader_options) {}

  bool next(Conversation& conversation) {
    while (reader || file < files.size()) {
      if (!reader) {
        reader = open_rows(files[file], conversation_columns());
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
      conversation = parse_conversation_row(row, &report.unread);
      const auto found = conversation_form(row.value);
      if (form && found != form) {
        throw DataError(fmt::format("a row in the form {} in a file that begins in the form {}", name_of(*found),
                                    name_of(*form)));
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
