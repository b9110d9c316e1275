#pragma once
// Documents from files: text and JSON lines (each also .gz and .zst), .parquet, standard input ("-") and pipes.
// file_form.h defines how the format of a file is detected.
//
// A text is a sequence of paragraphs separated by blank lines (lines of white space only). Paragraphs
// are collected until a document has min_document_bytes. The rest at the end of a file joins the last
// document, or is the only one. Blank lines around a document are dropped, runs of them inside are
// shortened to three, and CR LF becomes LF. A text without a blank line is split at the end of a
// line, or inside a longer line between characters, before it exceeds max_document_bytes.
// JSON lines have one object per line (core/json_input.h defines the
// accepted JSON). Blank lines and documents without text are skipped.
// A .parquet gives the values of one column, row by row, without nulls and empty values.
// One page of the column is in memory at a time. .parquet and .zst need a build with Arrow.
// A stream that begins with a brace is JSON lines, one that begins like parquet
// is copied to a temporary file, and any other is text. Each may be compressed.

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

// Expands files, folders and globs to a list of text files (see paths.h). JSON-lines files in a folder whose first
// row has no text (conversations or prompts beside a corpus) are skipped, with a log message. Throws DataError.
std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths, const ReaderOptions& options = {});

// Documents of one or more files in order, as a stream: memory does not grow with the corpus. Not thread-safe.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  // Replaces `document`. False at the end. Throws DataError: for a bad row (unless options.bad_rows takes it)
  // with file and line (malformed JSON, missing key) or file, line or row, and byte (invalid UTF-8); with the
  // file for bad gzip, zstd, parquet, or no clear text column; or if all files together have no document.
  virtual bool next(std::string& document) = 0;
  virtual std::uint64_t bytes_read() const = 0;   // of the files as stored, for progress
  virtual std::uint64_t bytes_total() const = 0;
};

std::unique_ptr<DocumentReader> open_documents(std::vector<std::filesystem::path> files, const ReaderOptions& options = {});

// True for documents held out for validation: every `every`-th of the
// corpus in order (indices every-1, 2*every-1, ...); never if every <= 0.
constexpr bool is_validation_document(std::uint64_t index, std::int64_t every) {
  return every > 0 && index % static_cast<std::uint64_t>(every) == static_cast<std::uint64_t>(every) - 1;
}

}  // namespace nanochat
