#include "data/checks/validate.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/sha256.h"
#include "data/conversations/conversations.h"
#include "data/rows/arrow_module.h"
#include "data/rows/byte_source.h"
#include "data/rows/paths.h"
#include "data/rows/rows.h"
#include "data/shards/shard.h"
#include "data/text/documents.h"
#include "data/text/text_measures.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::uint64_t kHashSeed = 0;

struct ConversationFault {
  std::string kind = {}, what = {};  // empty: none
  bool readable = true;              // training takes the conversation all the same
};

// Beside what the reader of conversations.h refuses: that a message is empty, the last one the user's, or none learned.
ConversationFault conversation_fault(const Row& row, UnreadKeys* unread) {
  Conversation conversation;
  try {
    conversation = parse_conversation_row(row, unread);
  } catch (const ConversationError& error) {
    return {error.kind(), error.what(), false};
  }
  const auto& messages = conversation.messages;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& parts = messages[i].parts;
    const bool empty = std::all_of(parts.begin(), parts.end(), [](const MessagePart& part) { return part.text.empty(); });
    if (empty)
      return {"empty-content",
              fmt::format("message {} of those that are rendered, the {}'s, is empty", i + 1, messages[i].role)};
  }
  if (messages.back().role != "assistant") return {"unanswered", "the last message is not the assistant's"};
  const auto learned = [](const Message& message) { return message.role == "assistant" && message.learned; };
  if (std::none_of(messages.begin(), messages.end(), learned))
    return {"nothing-learned", "no message of the assistant is learned"};
  return {};
}

class Validator {
 public:
  Validator(const ValidateOptions& options, ProgressReporter& progress) : options_(options), progress_(progress) {}

  void text_file(const fs::path& file) {
    ++report_.files;
    try {
      const FileFormat format = format_of_file(file);
      if (format == FileFormat::kText) {
        lines(file);
      } else if (format == FileFormat::kParquet && !holds_conversations(file)) {
        column(file);
      } else {
        rows(file);
      }
    } catch (const DataError& error) {
      found("unreadable", name_of(file), error.what());
    }
  }

  void shard_folder(const fs::path& folder) {
    std::set<std::string> listed;
    if (fs::exists(folder / "preparing.json")) {
      found("unfinished", folder.string(), "holds a preparation that was interrupted; `data prepare --resume` finishes it");
    }
    if (fs::exists(folder / "manifest.json")) listed = manifest(folder / "manifest.json");
    std::vector<fs::path> shards;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".tok") shards.push_back(entry.path());
    }
    std::sort(shards.begin(), shards.end());
    std::string fingerprint = options_.tokenizer != nullptr ? options_.tokenizer->fingerprint() : "";
    if (fingerprint.empty() && (fs::exists(folder / "tokenizer.json") || fs::exists(folder / "tokenizer.model"))) {
      try {
        fingerprint = load_tokenizer(folder)->fingerprint();
      } catch (const DataError& error) {
        found("wrong-tokenizer", folder.string(), error.what());
      }
    }
    for (const fs::path& path : shards) {
      if (!listed.empty() && !listed.contains(path.filename().string())) {
        found("unlisted-shard", path.string(), "manifest.json does not list it");
      }
      shard(path, fingerprint);
    }
  }

  void shard(const fs::path& path, std::string& fingerprint) {
    ++report_.files;
    try {
      const ShardReader reader(path);
      const ShardInfo& info = reader.info();
      if (fingerprint.empty()) fingerprint = info.tokenizer_fingerprint;
      if (info.tokenizer_fingerprint != fingerprint) {
        found("wrong-tokenizer", path.string(),
              fmt::format("made with tokenizer {}, expected {}", info.tokenizer_fingerprint.substr(0, 12),
                          fingerprint.substr(0, 12)));
      }
      if (info.documents == 0) found("no-documents", path.string(), "holds no document");
      const bool validation = path.filename().string().starts_with("validation-");
      std::vector<std::int32_t> tokens;
      for (std::uint64_t i = 0; i < info.documents && !interrupt_requested(); ++i) {
        tokens.clear();
        const std::string where = fmt::format("{}: document {}", path.string(), i);
        try {
          reader.document(i, tokens);
        } catch (const DataError& error) {
          found("checksum-mismatch", where, error.what());
          continue;
        }
        report_.tokens += tokens.size();
        if (tokens.empty()) {
          ++report_.documents;
          found("empty-document", where, "has no tokens");
          continue;
        }
        const std::string_view bytes(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(std::int32_t));
        document(hash128(bytes, kHashSeed), where, validation);
      }
      report_.bytes += info.text_bytes;
      reader.verify();
    } catch (const DataError& error) {
      found("damaged-shard", path.string(), error.what());
    }
    progress_.advance(static_cast<std::int64_t>(fs::file_size(path)));
  }

  ValidationReport take() { return std::move(report_); }

 private:
  // Errors of readers begin with the place: the file, the file and a line ("FILE:3"), or all of `where` ("FILE: document 3").
  // The report names it once, with the line.
  static void move_place(std::string& what, std::string& where) {
    if (what.starts_with(where + ": ")) {
      what.erase(0, where.size() + 2);
      return;
    }
    const std::string file = where.substr(0, where.find(": "));
    const std::size_t end = what.starts_with(file + ":") ? what.find(": ", file.size()) : std::string::npos;
    if (end == std::string::npos) return;
    if (where == file) where = what.substr(0, end);
    what.erase(0, end + 2);
  }

  void found(const std::string& kind, std::string where, std::string what) {
    if (static_cast<std::int64_t>(++report_.counts[kind]) <= options_.max_examples) {
      move_place(what, where);
      report_.examples.push_back({kind, std::move(where), std::move(what)});
    }
  }

  // One document or conversation; `held_out`: of the validation split, when the data has one.
  void document(const Hash128& digest, const std::string& where, bool held_out = false) {
    const std::uint64_t number = report_.documents++;
    const auto [before, first] = seen_.try_emplace(digest, Seen{number, held_out});
    if (first) return;
    if (before->second.held_out != held_out) {
      found("split-overlap", where, fmt::format("is in the other split too, as document {} of all", before->second.number));
    } else {
      found("duplicate-document", where, fmt::format("is the same as document {} of all", before->second.number));
    }
  }

  // Faults of the characters themselves. True when there is none that keeps the line from being read.
  bool check_characters(std::string_view text, const std::string& where) {
    if (!is_valid_utf8(text)) {
      found("invalid-utf8", where, "holds bytes that are not UTF-8");
      return false;
    }
    const auto control = std::find_if(text.begin(), text.end(), [](char c) {
      const auto byte = static_cast<unsigned char>(c);
      return (byte < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != '\f') || byte == 0x7F;
    });
    if (control != text.end()) {
      found("control-character", where,
            fmt::format("holds the control character U+{:04X}", static_cast<unsigned>(static_cast<unsigned char>(*control))));
    }
    if (text.find("\xEF\xBF\xBD") != std::string_view::npos) {
      found("replacement-character", where, "holds U+FFFD, which a wrong decoding left");
    }
    return true;
  }

  void check_text(std::string_view text, const std::string& where) {
    report_.bytes += text.size();
    if (text.find_first_not_of(" \t\r\n\f") == std::string_view::npos) {
      ++report_.documents;
      found("empty-document", where, "has no text");
      return;
    }
    if (static_cast<std::int64_t>(text.size()) > options_.max_document_bytes) {
      found("oversized-document", where, fmt::format("has {} bytes, more than {}", text.size(), options_.max_document_bytes));
    }
    document(hash128(text, kHashSeed), where);
  }

  // Of streams by what they hold.
  static FileFormat format_of_file(const fs::path& file) {
    const FileFormat format = form_of(file).format;
    if (format != FileFormat::kUnknown || !is_stream(file)) return format;
    constexpr std::size_t kSeen = 4096;
    return format_of(PeekedSource(open_bytes(file)).peek(kSeen));
  }

  bool holds_conversations(const fs::path& file) const {
    if (!options_.text_column.empty()) return false;
    try {
      Row row;
      return open_rows(file, conversation_columns())->next(row) && conversation_form(row.value);
    } catch (const DataError&) {
      open_rows(file);  // throws for a damaged file; this one has none of these columns
      return false;
    }
  }

  // The column of a parquet that `data prepare` reads.
  void column(const fs::path& file) {
    std::unique_ptr<TextColumn> values;
    try {
      values = open_text_column(file, options_.text_column);
    } catch (const DataError& error) {
      return found("missing-text", name_of(file), error.what());
    }
    if (options_.text_column.empty() && values->name() != "text") {
      log_info("{}: the text is taken from the column \"{}\"", name_of(file), values->name());
    }
    std::uint64_t before = 0;
    bool any = false;
    for (std::string text; !interrupt_requested() && values->next(text); any = true) {
      advance(values->stored_bytes(), before);
      const std::string where = fmt::format("{}: row {}", name_of(file), values->row());
      if (check_characters(text, where)) check_text(text, where);
    }
    advance(values->stored_bytes(), before);
    if (!any) found("no-documents", name_of(file), "holds no row with text");
  }

  void rows(const fs::path& file) {
    const auto reader = open_rows(file, conversation_columns());  // of a parquet, which holds conversations
    std::uint64_t before = 0, found_rows = 0;
    std::optional<ConversationForm> form;  // of the first conversation of the file that can be read
    for (Row next; !interrupt_requested() && reader->next(next);) {
      advance(reader->stored_bytes(), before);
      ++found_rows;
      const std::string& where = next.where;
      const json& row = next.value;
      if (!next.fault.empty()) {
        found(next.fault_kind, where, next.fault);
      } else if (conversation_form(row)) {
        ++report_.conversations;
        const ConversationFault fault = conversation_fault(next, &report_.unread);
        if (!fault.kind.empty()) found(fault.kind, where, fault.what);
        const auto form_found = conversation_form(row);
        if (form && form != form_found) {
          found("other-form", where,
                fmt::format("is in the form {} in a file that begins in the form {}", name_of(*form_found), name_of(*form)));
        } else if (fault.readable) {
          form = form_found;
        }
        const std::string text = row.dump(-1, ' ', false, json::error_handler_t::replace);
        report_.bytes += text.size();
        document(hash128(text, kHashSeed), where);
      } else if (!row.is_object() || !row.contains(text_column())) {
        found("missing-text", where, fmt::format("has no \"{}\" and is no conversation", text_column()));
      } else if (!row.at(text_column()).is_string()) {
        found("wrong-type", where, fmt::format("\"{}\" is not a string", text_column()));
      } else {
        const auto& text = row.at(text_column()).get_ref<const std::string&>();
        if (check_characters(text, where)) check_text(text, where);
      }
    }
    advance(reader->stored_bytes(), before);
    if (found_rows == 0) found("no-documents", name_of(file), "holds no row");
  }

  void lines(const fs::path& file) {
    constexpr std::size_t kPart = 1 << 20;
    std::uint64_t before = 0;
    bool readable = true;
    LineReader reader(open_bytes(file));
    for (std::string line; !interrupt_requested() && reader.next(line, kPart);) {
      advance(reader.stored_bytes(), before);
      readable = check_characters(line, fmt::format("{}:{}", name_of(file), reader.line_number())) && readable;
    }
    advance(reader.stored_bytes(), before);
    if (!readable || interrupt_requested()) return;
    const auto documents = open_documents({file});
    std::uint64_t index = 0;
    for (std::string text; !interrupt_requested() && documents->next(text); ++index) {
      check_text(text, fmt::format("{}: document {}", name_of(file), index));
    }
  }

  static bool is_shard_row(const json& row) {
    const auto has_number = [&row](const char* key) { return !row.contains(key) || row.at(key).is_number_unsigned(); };
    return row.is_object() && (!row.contains("file") || row.at("file").is_string()) && has_number("documents") &&
           has_number("tokens");
  }

  const std::string& text_column() const {
    static const std::string preset = "text";
    return options_.text_column.empty() ? preset : options_.text_column;
  }

  // The files that it lists.
  std::set<std::string> manifest(const fs::path& file) {
    std::set<std::string> listed;
    const json content = json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
    if (!content.is_object() || !content.contains("shards") || !content.at("shards").is_array()) {
      found("damaged-manifest", file.string(), "is not what `data prepare` writes");
      return listed;
    }
    for (const json& row : content.at("shards")) {
      if (!is_shard_row(row)) {
        found("damaged-manifest", file.string(), "its list of shards is not what `data prepare` writes");
        continue;
      }
      const std::string name = row.value("file", "");
      const fs::path path = file.parent_path() / name;
      listed.insert(name);
      if (name.empty() || !fs::is_regular_file(path)) {
        found("missing-shard", path.string(), "manifest.json lists it, but it is not there");
        continue;
      }
      if (row.contains("sha256") && row.at("sha256") != sha256_hex_of_file(path)) {
        found("hash-mismatch", path.string(), "its SHA-256 is not the one in manifest.json");
      }
      try {
        const ShardInfo info = ShardReader(path).info();
        if (row.value("documents", info.documents) != info.documents || row.value("tokens", info.tokens) != info.tokens) {
          found("count-mismatch", path.string(),
                fmt::format("holds {} documents and {} tokens, which manifest.json does not say", info.documents, info.tokens));
        }
      } catch (const DataError&) {  // reported with the shard itself
      }
    }
    return listed;
  }

  void advance(std::uint64_t stored, std::uint64_t& before) {
    progress_.advance(static_cast<std::int64_t>(stored - before));
    before = stored;
  }

  struct Seen {
    std::uint64_t number = 0;
    bool held_out = false;
  };

  const ValidateOptions& options_;
  ProgressReporter& progress_;
  ValidationReport report_;
  std::unordered_map<Hash128, Seen, Hash128::Hasher> seen_;
};

std::vector<fs::path> text_files(const std::vector<std::string>& paths, const ValidateOptions& options) {
  const std::string column = options.text_column.empty() ? "text" : options.text_column;
  std::vector<fs::path> files, others;
  const auto found = find_files(paths, {FileFormat::kText, FileFormat::kJsonLines, FileFormat::kJson, FileFormat::kParquet},
                                "text",
                                /*streams=*/true);
  for (const FoundFile& file : found) {
    json row;
    if (file.in_folder && form_of(file.path).format == FileFormat::kJsonLines) row = first_row(file.path);
    const bool neither = row.is_object() && !row.contains(column) && !conversation_form(row);
    (neither ? others : files).push_back(reopenable(file.path));
  }
  if (files.empty()) return others;
  for (const fs::path& file : others) {
    log_info("{}: passed over, since its rows have no \"{}\" and are no conversations", file.string(), column);
  }
  return files;
}

bool holds_shards(const fs::path& folder) {
  if (!fs::is_directory(folder)) return false;
  return std::any_of(fs::directory_iterator(folder), fs::directory_iterator(),
                     [](const fs::directory_entry& entry) { return entry.path().extension() == ".tok"; }) ||
         fs::exists(folder / "manifest.json") || fs::exists(folder / "preparing.json");
}

}  // namespace

const std::vector<std::pair<std::string, std::string>>& finding_kinds() {
  static const std::vector<std::pair<std::string, std::string>> kinds = {
      {"unreadable", "a file cannot be read: not gzip, truncated, no permission"},
      {"invalid-utf8", "bytes that are not UTF-8"},
      {"control-character", "a control character other than tab, line feed, carriage return and form feed"},
      {"replacement-character", "U+FFFD, which a wrong decoding left"},
      {"malformed-json", "a row that is not JSON"},
      {"missing-text", "a row that has no text and is no conversation"},
      {"wrong-type", "a row whose text is not a string"},
      {"empty-document", "a document without text, or without tokens"},
      {"oversized-document", "a document of more than --max-document-bytes"},
      {"duplicate-document", "a document that came before"},
      {"split-overlap", "a document of the training split that is in the validation split too"},
      {"no-documents", "a file or shard without a document"},
      {"no-messages", "a conversation without messages"},
      {"wrong-role", "an unknown role, one that is not user or assistant in turn, or system anywhere but first"},
      {"wrong-content", "content that is neither a string nor a list of parts"},
      {"empty-content", "a message without content"},
      {"wrong-part", "a part of unknown type or without text, or a call of the calculator by a user"},
      {"wrong-call", "a call or a description of a function that is not JSON or has no name"},
      {"wrong-weight", "a weight of a message that is not 0 or 1, or different ones in one turn"},
      {"unsupported-key", "a key that changes what is learned and that cannot be followed, such as images"},
      {"other-form", "a conversation in another form than the first of its file"},
      {"unanswered", "a conversation whose last message is not the assistant's"},
      {"nothing-learned", "a conversation in which no message of the assistant is learned"},
      {"damaged-shard", "a token shard whose header, size or checksum is wrong"},
      {"checksum-mismatch", "a document of a shard whose tokens changed"},
      {"wrong-tokenizer", "a shard of another tokenizer than the folder's, the other shards' or --tokenizer"},
      {"damaged-manifest", "a manifest.json that `data prepare` did not write"},
      {"missing-shard", "a shard that manifest.json lists and that is not there"},
      {"unlisted-shard", "a shard that manifest.json does not list"},
      {"hash-mismatch", "a shard whose SHA-256 is not the one in manifest.json"},
      {"count-mismatch", "a shard that holds more or fewer documents or tokens than manifest.json says"},
      {"unfinished", "a folder whose preparation was interrupted"},
  };
  return kinds;
}

nlohmann::ordered_json ValidationReport::to_json() const {
  nlohmann::ordered_json result = {{"clean", clean()},
                                   {"files", files},
                                   {"documents", documents},
                                   {"conversations", conversations},
                                   {"bytes", bytes},
                                   {"tokens", tokens},
                                   {"findings", nlohmann::ordered_json::object()}};
  for (const auto& [kind, meaning] : finding_kinds()) {
    const auto count = counts.find(kind);
    if (count != counts.end()) result["findings"][kind] = count->second;
  }
  result["unread_keys"] = unread;
  result["examples"] = nlohmann::ordered_json::array();
  for (const Finding& finding : examples) {
    result["examples"].push_back(
        {{"kind", finding.kind}, {"where", replace_invalid_utf8(finding.where)}, {"what", replace_invalid_utf8(finding.what)}});
  }
  return result;
}

ValidationReport validate_data(const std::vector<std::string>& paths, const ValidateOptions& options,
                               ProgressReporter& progress) {
  std::vector<fs::path> shard_folders, shards, texts;
  std::vector<std::string> text_paths;
  for (const std::string& path : paths) {
    if (holds_shards(path)) {
      shard_folders.emplace_back(path);
    } else if (fs::path(path).extension() == ".tok") {
      if (!fs::is_regular_file(path)) throw DataError(path + ": no such file");
      shards.emplace_back(path);
    } else {
      text_paths.push_back(path);
    }
  }
  if (!text_paths.empty()) texts = text_files(text_paths, options);
  std::uintmax_t total = 0;
  std::error_code ignored;
  for (const fs::path& file : texts) total += fs::file_size(file, ignored);
  for (const fs::path& file : shards) total += fs::file_size(file, ignored);
  for (const fs::path& folder : shard_folders) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".tok") total += fs::file_size(entry.path(), ignored);
    }
  }
  progress.start("validate", static_cast<std::int64_t>(total), "B");
  Validator validator(options, progress);
  for (const fs::path& folder : shard_folders) validator.shard_folder(folder);
  std::string fingerprint = options.tokenizer != nullptr ? options.tokenizer->fingerprint() : "";
  for (const fs::path& file : shards) validator.shard(file, fingerprint);
  for (const fs::path& file : texts) validator.text_file(file);
  progress.finish();
  return validator.take();
}

}  // namespace nanochat
