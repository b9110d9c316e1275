#pragma once
// Conversations from files, in the forms that people have them:
//
//   messages   {"messages": [{"role", "content"}, ...]}
//   array      [{"role", "content"}, ...]
//   ShareGPT   {"conversations": [{"from", "value"}, ...]}, from: system, human or user, gpt or assistant
//   Alpaca     {"instruction", "input", "output"}; input, where there is any, follows instruction after an empty line.
//              Also "system", and "history", a list of [question, answer] that came before
//
// a row each of the files of data/rows.h (.jsonl, .json, .parquet, ...). A file has the form of its first good row; a row
// in another form is bad. Content is a string, or a list of parts {"type": "text"|"python"|"python_output", "text"}. Keys
// not named here are passed over. Empty content is content; content that is null or missing is not.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/errors.h"
#include "tokenizer/conversation.h"

namespace nanochat {

enum class ConversationForm { kMessages, kArray, kShareGpt, kAlpaca };

// What is wrong with one row. `kind` is one of validate.h's: "no-messages", "wrong-role", "wrong-content",
// "empty-content", "wrong-part", "missing-text".
class ConversationError : public DataError {
 public:
  ConversationError(std::string kind, const std::string& what) : DataError(what), kind_(std::move(kind)) {}
  const std::string& kind() const { return kind_; }

 private:
  std::string kind_;
};

// The form of a row; nullopt when it has none of them.
std::optional<ConversationForm> conversation_form(const nlohmann::json& row);
// Checked as check_conversation of tokenizer/conversation.h. Throws ConversationError naming the message, from 1.
Conversation parse_conversation(const nlohmann::json& row);
// {"messages": [{"role", "content"}, ...]}; content is a string unless there are several parts or a call. Bytes that are
// not UTF-8 become U+FFFD.
nlohmann::ordered_json to_json(const Conversation& conversation);

struct ConversationOptions {
  bool skip_bad = false;        // go on past a bad row, which is counted, instead of throwing
  bool require_answer = true;   // a conversation without a message of the assistant is bad
  std::size_t max_examples = 5; // of bad rows to keep
};

struct ConversationReport {
  std::uint64_t rows = 0, bad = 0;    // bad ones included
  std::vector<std::string> examples;  // "chat.jsonl:12: ...", the first of the bad ones
  std::string summary() const;        // one line: "3 of 120 rows skipped, the first: chat.jsonl:12: ..."; empty if none was
};

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
