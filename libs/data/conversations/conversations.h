#pragma once
// Conversations from files, in the forms that people have them (docs/data.md has the whole table):
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
// A message with "weight": 0, "train": false or the like is context and not learned (Message::learned). Keys that would
// change what a conversation means and that nothing here can follow (a weight of 0.5, images) make a row bad; every other
// key is counted as unread.

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

// How often each key came that is not read: "id", "messages[].name". At most kMostUnreadKeys different ones are kept.
using UnreadKeys = std::map<std::string, std::uint64_t>;
inline constexpr std::size_t kMostUnreadKeys = 50;
std::string describe(const UnreadKeys& keys);  // id (120 times), source (3 times)

// The form of a row; nullopt when it has none of them.
std::optional<ConversationForm> conversation_form(const nlohmann::json& row);
const char* name_of(ConversationForm form);
// The columns of a .parquet that a conversation can be made of, and those that make a row bad.
const std::vector<std::string>& conversation_columns();
// Throws ConversationError naming the message, from 1. `unread`, unless null, is added to.
Conversation parse_conversation(const nlohmann::ordered_json& row, UnreadKeys* unread = nullptr);
Conversation parse_conversation_row(const Row& row, UnreadKeys* unread = nullptr);  // one without a fault
bool has_answer(const Conversation& conversation);  // a message of the assistant
// {"messages": [{"role", "content"}, ...]}; content is a string unless there are several parts or a call; a message that is
// not learned has "weight": 0. Bytes that are not UTF-8 become U+FFFD.
nlohmann::ordered_json to_json(const Conversation& conversation);

struct ConversationOptions {
  bool skip_bad = false;        // go on past a bad row, which is counted, instead of throwing
  bool require_answer = true;   // a conversation without a message of the assistant is bad
  std::size_t max_examples = 5; // of bad rows to keep
};

struct ConversationReport {
  std::uint64_t rows = 0, bad = 0;    // bad ones included
  std::vector<std::string> examples;  // "chat.jsonl:12: ...", the first of the bad ones
  UnreadKeys unread;                  // of a .parquet those of conversation_columns() alone
  std::string summary() const;        // one line: "3 of 120 rows skipped, the first: chat.jsonl:12: ..."; empty if none was
};
// Logs what was skipped and what was not read. `name` stands in front, unless it is empty.
void log_report(const ConversationReport& report, const std::string& name = {});

// One file after another, streamed (a .json is read whole). Not thread-safe.
class ConversationReader {
 public:
  explicit ConversationReader(std::vector<std::filesystem::path> files, const ConversationOptions& options = {});
  ~ConversationReader();
  // False at the end. Throws DataError: with file and line (or row) unless skip_bad, with the file for what is wrong with
  // all of it, and when the files together hold no row, or bad ones alone.
  bool next(Conversation& conversation);
  const std::string& where() const;  // of the conversation returned last: "chat.jsonl:12"
  const ConversationReport& report() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// All conversations of files, folders and globs. `report`, unless null, is filled in.
std::vector<Conversation> read_conversations(const std::vector<std::string>& paths, const ConversationOptions& options = {},
                                             ConversationReport* report = nullptr);

}  // namespace nanochat
