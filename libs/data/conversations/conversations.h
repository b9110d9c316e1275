#pragma once
// Conversations from files in many common formats (docs/data.md has the whole table):
//
//   a list of messages       {"messages": [...]}, {"conversations": [...]}, {"conversation": [...]}, or the bare array.
//                            A message has "role" or "from", and "content" or "value"; the names of roles of OpenAI,
//                            ShareGPT and others are known. Calls of functions and their results are rendered by
//                            tokenizer/chat_history.h. Beside the list: "system", and "tools" or "functions".
//   a question, an answer    {"instruction", "input", "output"} (Alpaca), {"prompt", "completion"} (TRL, strings or lists of
//                            messages), {"question", "answer"}, {"query", "response"}, {"input", "output"}; also with
//                            "system", and "history", a list of [question, answer] that came before
//
// a row each of the files of data/rows/rows.h (.jsonl, .json, .parquet, ...). A file has the form of its first good row; a row
// in another form is bad. Content is a string, or a list of parts {"type": "text"|"python"|"python_output", "text"}. Empty
// content is content; content that is null or missing is not.
//
// A message with "weight": 0, "train": false or the like is context and not learned
// (Message::learned). Keys that would change the meaning of a conversation but are not
// supported (a weight of 0.5, images) make a row bad. All other keys are counted as unread.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/errors.h"
#include "tokenizer/conversation.h"

namespace nanochat {

struct Row;

enum class ConversationForm {
  kArray,
  kMessages,
  kShareGpt,
  kConversation,
  kAlpaca,
  kPromptCompletion,
  kQuestionAnswer,
  kQueryResponse,
  kInputOutput
};

// What is wrong with one row. `kind` is one of validate.h's: "no-messages", "wrong-role", "wrong-content",
// "empty-content", "wrong-part", "wrong-call", "wrong-weight", "unsupported-key", "missing-text".
class ConversationError : public DataError {
 public:
  ConversationError(std::string kind, const std::string& what) : DataError(what), kind_(std::move(kind)) {}
  const std::string& kind() const { return kind_; }

 private:
  std::string kind_;
};

// How often each unread key occurred: "id", "messages[].name". At most kMostUnreadKeys different ones are kept.
using UnreadKeys = std::map<std::string, std::uint64_t>;
inline constexpr std::size_t kMostUnreadKeys = 50;
std::string describe(const UnreadKeys& keys);  // id (120 times), source (3 times)

// The form of a row; nullopt if it has none of them.
std::optional<ConversationForm> conversation_form(const nlohmann::json& row);
const char* name_of(ConversationForm form);
// The columns of a .parquet that conversations use, and those that make a row bad.
const std::vector<std::string>& conversation_columns();
// Throws ConversationError with the number of the message, from 1. Adds to `unread` unless it is null.
Conversation parse_conversation(const nlohmann::ordered_json& row, UnreadKeys* unread = nullptr);
Conversation parse_conversation_row(const Row& row, UnreadKeys* unread = nullptr);  // one without a fault
bool has_answer(const Conversation& conversation);  // true if the assistant has a message
// {"messages": [{"role", "content"}, ...]}. Content is a string unless there are several parts or
// a call; a message that is not learned has "weight": 0. Bytes that are not UTF-8 become U+FFFD.
nlohmann::ordered_json to_json(const Conversation& conversation);

struct ConversationOptions {
  bool skip_bad = false;        // skip and count bad rows instead of throwing
  bool require_answer = true;   // a conversation without a message of the assistant is bad
  std::size_t max_examples = 5; // number of bad rows to keep as examples
};

struct ConversationReport {
  std::uint64_t rows = 0, bad = 0;    // bad ones included
  std::vector<std::string> examples;  // "chat.jsonl:12: ...", the first of the bad ones
  UnreadKeys unread;                  // of a .parquet those of conversation_columns() alone
  std::string summary() const;        // one line: "3 of 120 rows skipped, the first: chat.jsonl:12: ..."; empty if none was
};
// Logs skipped rows and unread keys. Messages begin with `name`, unless it is empty.
void log_report(const ConversationReport& report, const std::string& name = {});

// Reads one file after another as a stream (a .json is read whole). Not thread-safe.
class ConversationReader {
 public:
  explicit ConversationReader(std::vector<std::filesystem::path> files, const ConversationOptions& options = {});
  ~ConversationReader();
  // False at the end. Throws DataError with file and line (or row) unless skip_bad, with the file
  // for a problem of the whole file, and if the files together have no row, or only bad ones.
  bool next(Conversation& conversation);
  const std::string& where() const;  // place of the conversation returned last: "chat.jsonl:12"
  const ConversationReport& report() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// All conversations of files, folders and globs. Fills in `report` unless it is null.
std::vector<Conversation> read_conversations(const std::vector<std::string>& paths, const ConversationOptions& options = {},
                                             ConversationReport* report = nullptr);

}  // namespace nanochat
