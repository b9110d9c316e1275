#include "prompts_file.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "data/conversations/conversations.h"
#include "data/rows/byte_source.h"
#include "data/rows/file_form.h"
#include "data/rows/rows.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

Prompt prompt_of_messages(const json& row, const std::string& where) {
  Prompt prompt{where, {}, {}, {}};
  try {
    prompt.conversation = parse_conversation(row);
  } catch (const ConversationError& error) {
    throw DataError(fmt::format("{}: {}", where, error.what()));
  }
  if (const Message& last = prompt.conversation->messages.back(); last.role != "user") {
    throw DataError(fmt::format("{}: the last message is the {}'s; a prompt ends with the user's", where, last.role));
  }
  return prompt;
}

Prompt prompt_of_row(const Row& row) {
  const std::string& where = row.where;
  if (!row.fault.empty()) throw DataError(fmt::format("{}: {}", where, row.fault));
  const json& value = row.value;
  if (value.is_array()) return prompt_of_messages(value, where);
  int given = 0;
  for (const char* key : {"prompt", "prompt_ids", "messages"}) given += value.is_object() && value.contains(key) ? 1 : 0;
  if (given != 1) {
    throw DataError(fmt::format("{}: expected an object with one of \"prompt\", \"prompt_ids\" and \"messages\"", where));
  }
  if (value.contains("messages")) return prompt_of_messages(value, where);
  if (const auto text = value.find("prompt"); text != value.end()) {
    if (!text->is_string()) throw DataError(fmt::format("{}: \"prompt\" is not a string", where));
    if (is_blank(text->get<std::string>())) throw DataError(fmt::format("{}: \"prompt\" is blank", where));
    return {where, text->get<std::string>(), {}, {}};
  }
  const json& ids = value.at("prompt_ids");
  const auto is_id = [](const json& id) {
    return id.is_number_integer() && id.get<std::int64_t>() >= 0 && id.get<std::int64_t>() <= INT32_MAX;
  };
  if (!ids.is_array() || ids.empty() || !std::all_of(ids.begin(), ids.end(), is_id)) {
    throw DataError(fmt::format("{}: \"prompt_ids\" is not a list of token ids", where));
  }
  return {where, {}, ids.get<std::vector<TokenId>>(), {}};
}

std::vector<Prompt> read_rows(const fs::path& path) {
  std::vector<Prompt> prompts;
  const auto rows = open_rows(path);
  for (Row row; rows->next(row);) prompts.push_back(prompt_of_row(row));
  return prompts;
}

std::vector<Prompt> read_lines(const fs::path& path, const std::string& name, bool rows, bool guess) {
  constexpr std::size_t kLongest = std::size_t{64} << 20;
  std::vector<Prompt> prompts;
  LineReader lines(open_bytes(path));
  for (std::string line; lines.next(line, kLongest);) {
    Row row;
    row.where = fmt::format("{}:{}", name, lines.line_number());
    if (!lines.ends_line()) throw DataError(fmt::format("{}: the line is longer than {} bytes", row.where, kLongest));
    if (is_blank(line)) continue;
    if (std::exchange(guess, false)) rows = line[line.find_first_not_of(" \t")] == '{';
    if (rows) {
      parse_row(line, row);
      prompts.push_back(prompt_of_row(row));
    } else {
      prompts.push_back({row.where, std::move(line), {}, {}});
    }
  }
  return prompts;
}

}  // namespace

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

std::vector<Prompt> read_prompts_file(const fs::path& path) {
  const std::string name = name_of(path);
  const FileFormat format = form_of(path).format;
  const bool rows = format == FileFormat::kJsonLines;
  const bool whole = format == FileFormat::kJson || format == FileFormat::kParquet;
  std::vector<Prompt> prompts = whole ? read_rows(path) : read_lines(path, name, rows, !rows && format != FileFormat::kText);
  if (prompts.empty()) throw DataError(name + ": holds no prompt");
  return prompts;
}

}  // namespace nanochat::cli
