#pragma once
// Documents from files: text and JSON lines (each also .gz and .zst), .parquet, standard input ("-") and pipes.
// file_form.h says what a file is taken for.
//
// A text is a sequence of paragraphs, separated by blank lines (lines of white space alone). Paragraphs are collected
// until a document has min_document_bytes; what remains at the end of a file joins its last document, or stands alone
// when it is the only one. Blank lines around a document are dropped, runs of them inside one shorten to three, CR LF
// becomes LF. A text without a blank line is cut at the end of a line, or inside a longer line at a character, before
// it exceeds max_document_bytes.
// JSON lines hold an object a line (core/json_input.h says what is JSON); blank lines and documents without text are
// passed over.
// A .parquet gives the values of one column, row by row; nulls and empty values are passed over. One page of the column
// is in memory at a time. .parquet and .zst need a build with Arrow.
// A stream that begins with a brace holds JSON lines, one that begins as parquet does is copied to a temporary file, any
// other is text; each may be compressed.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/rows/bad_rows.h"

namespace nanochat {

struct ReaderOptions {
  std::int64_t min_document_bytes = 2000;     // 1: every paragraph of a .txt is a document
  std::int64_t max_document_bytes = 1 << 20;  // of a .txt: bounds memory where no blank line comes; at least 8 times
                                              // min_document_bytes is used
  std::string text_column = {};               // key of a row of JSON, or column of a .parquet, that holds the text;
                                              // empty: "text", and in a .parquet without it its only column of strings
  std::shared_ptr<BadRows> bad_rows = {};     // rows that cannot be read are added and passed over; null: they are errors
};

// Files, folders and globs to a list of text files (see paths.h). Of a folder, files of JSON lines whose first row has no
// text are passed over, which the log says: conversations or prompts beside a corpus. Throws DataError.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths, const ReaderOptions& options = {});

// Documents of one or more files in order, streamed: memory does not grow with the corpus. Not thread-safe.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  // Replaces `document`. False at the end. Throws DataError for a bad row (unless options.bad_rows takes it) with file and
  // line (malformed JSON, missing key) or with file, line or row, and byte (invalid UTF-8); with the file (bad gzip, zstd,
  // parquet, or no column that is clearly the text); or when all files together hold no document.
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
