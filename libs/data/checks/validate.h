#pragma once
// Looks for faults in training data before a training run does: text, conversations and folders of token shards.
// Unlike the readers, which stop at the first fault, this goes on and reports them all.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

class ProgressReporter;
class Tokenizer;

struct ValidateOptions {
  std::string text_column;                      // as of documents.h
  std::int64_t max_document_bytes = 10 << 20;   // of text; longer ones are reported
  std::int64_t max_examples = 5;                // findings of one kind that are kept; all are counted
  const Tokenizer* tokenizer = nullptr;         // that token shards must have been made with; null: any one
};

struct Finding {
  std::string kind;   // see finding_kinds()
  std::string where;  // "file.jsonl:12", "train-00000.tok: document 7"
  std::string what;
};

struct ValidationReport {
  std::uint64_t files = 0, documents = 0, conversations = 0, bytes = 0, tokens = 0;
  std::map<std::string, std::uint64_t> counts;  // of findings by kind; empty: no fault
  std::vector<Finding> examples;                // in the order of the data
  std::map<std::string, std::uint64_t> unread;  // keys of conversations that nothing reads (conversations.h): no fault
  bool clean() const { return counts.empty(); }
  nlohmann::ordered_json to_json() const;
};

// `paths`: files, folders and globs of text or conversations (text, JSON lines and JSON, each also .gz or .zst, parquet,
// standard input and pipes), or folders and files of token shards. A row in one of the forms of conversations.h is a
// conversation, any other has text, which is found as documents.h finds it. Of a folder, files of JSON lines whose first
// row is neither are passed over, as there.
// Memory: about 50 bytes a document, to find duplicates. Throws DataError when nothing is found to look at.
ValidationReport validate_data(const std::vector<std::string>& paths, const ValidateOptions& options,
                               ProgressReporter& progress);

// Every kind of fault with what it means, in the order of the documentation.
const std::vector<std::pair<std::string, std::string>>& finding_kinds();

}  // namespace nanochat
