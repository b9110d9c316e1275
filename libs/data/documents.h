#pragma once
// Documents from files: .txt and .jsonl, each also .gz and .zst, .parquet, and standard input ("-").
//
// A .txt is a sequence of paragraphs, separated by blank lines (lines of white space alone). Paragraphs are collected
// until a document has min_document_bytes; what remains at the end of a file joins its last document, or stands alone
// when it is the only one. Blank lines around a document are dropped, runs of them inside one shorten to three, CR LF
// becomes LF. A text without a blank line is cut at the end of a line, or inside a longer line at a character, before
// it exceeds max_document_bytes.
// A .jsonl holds an object a line; blank lines and documents without text are passed over.
// A .parquet gives the values of one column, row by row; nulls and empty values are passed over. One page of the column
// is in memory at a time. .parquet and .zst need a build with Arrow.
// Standard input is a .jsonl when it begins with a brace, otherwise a .txt, and may be compressed.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace nanochat {

struct ReaderOptions {
  std::int64_t min_document_bytes = 2000;     // 1: every paragraph of a .txt is a document
  std::int64_t max_document_bytes = 1 << 20;  // of a .txt: bounds memory where no blank line comes; at least 8 times
                                              // min_document_bytes is used
  std::string text_key;                       // key of a .jsonl row, or column of a .parquet, that holds the text;
                                              // empty: "text", and in a .parquet without it its first column of text
};

// Files, folders and globs to a list of text files (see paths.h). Throws DataError.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths);

// Documents of one or more files in order, streamed: memory does not grow with the corpus. Not thread-safe.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  // Replaces `document`. False at the end. Throws DataError with file and line (malformed JSON, missing key), with
  // file, line or row, and byte (invalid UTF-8), with the file (bad gzip, zstd, parquet, or no column of text), or when
  // all files together hold no document.
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
