#pragma once
// Documents from files: .txt and .jsonl, each also .gz; later forms (parquet, zst) join here.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace nanochat {

struct ReaderOptions {
  std::int64_t min_document_bytes = 2000;  // a .txt is cut at blank lines into documents of at least this many bytes
  std::string text_key = "text";           // key of a .jsonl row that holds the text
};

// Files, folders (every readable file below them, sorted) and globs to a list of files. Throws DataError naming the
// path that is missing, empty or matches nothing, or a file with an unknown extension that was named outright.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths);

// Documents of one or more files in order, streamed: memory does not grow with the corpus. Not thread-safe.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  // False at the end. Throws DataError with file and line (malformed JSON, missing key, invalid UTF-8, bad gzip).
  virtual bool next(std::string& document) = 0;
  virtual std::uint64_t bytes_read() const = 0;   // of the files as stored, for progress
  virtual std::uint64_t bytes_total() const = 0;
};

std::unique_ptr<DocumentReader> open_documents(std::vector<std::filesystem::path> files, const ReaderOptions& options = {});

// True for the documents held out for validation: every `every`-th of the corpus in order (indices every-1,
// 2*every-1, ...); never when every <= 0.
constexpr bool is_validation_document(std::uint64_t index, std::int64_t every) {
  return every > 0 && index % static_cast<std::uint64_t>(every) == static_cast<std::uint64_t>(every) - 1;
}

}  // namespace nanochat
