#pragma once
// Finds problems in training data before a training run: text, conversations and folders of
// token shards. Unlike the readers, which stop at the first problem, this reports all of them.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

class ProgressReporter;
class Tokenizer;

struct ValidateOptions {
  std::string text_column;                      // see documents.h
  std::int64_t max_document_bytes = 10 << 20;   // of text; longer ones are reported
  std::int64_t max_examples = 5;                // number of findings of one kind to keep; all are counted
  const Tokenizer* tokenizer = nullptr;         // the tokenizer that shards must be made with; null: any
};

struct Finding {
  std::string kind;   // see finding_kinds()
  std::string where;  // "file.jsonl:12", "train-00000.tok: document 7"
  std::string what;
};

struct ValidationReport {
  std::uint64_t files = 0, documents = 0, conversations = 0, bytes = 0, tokens = 0;
  std::map<std::string, std::uint64_t> counts;  // number of findings by kind; empty: no problem
  std::vector<Finding> examples;                // in the order of the data
  std::map<std::string, std::uint64_t> unread;  // unread keys of conversations (conversations.h); not a problem
  bool clean() const { return counts.empty(); }
  nlohmann::ordered_json to_json() const;
};

// `paths`: files, folders and globs of text or conversations (text, JSON lines and JSON, each
// also .gz or .zst, parquet, standard input and pipes), or folders and files of token shards. A
// row in one of the forms of conversations.h is a conversation; any other row has text, found as
// in documents.h. JSON-lines files in a folder whose first row is neither are skipped, as there.
// Memory: about 50 bytes per document, to find duplicates. Throws DataError if there is nothing to check.
ValidationReport validate_data(const std::vector<std::string>& paths, const ValidateOptions& options,
                               ProgressReporter& progress);

// Every kind of problem with its meaning, in the order of the documentation.
const std::vector<std::pair<std::string, std::string>>& finding_kinds();

}  // namespace nanochat
