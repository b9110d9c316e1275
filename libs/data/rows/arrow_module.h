#pragma once
// What this library asks of Arrow: text and rows from parquet files, and zstd streams. Included by both sides of a boundary:
//
// libparquet.so and libarrow.so from the wheel export the copy of OpenSSL (and of parts of other libraries) that is
// inside them. Linked into the program, they would take over the symbols that libcurl and libssl look for. So everything
// that touches Arrow is a module, arrow/*.cpp, loaded with RTLD_LOCAL when the first file needs it (arrow_loader.cpp):
// nobody else sees its symbols, and programs that read no parquet start without loading 60 MB. A build without Arrow has
// arrow_none.cpp in its place.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/rows/byte_source.h"

namespace nanochat {

// The values of one column of one parquet file in order, without those that are null. Holds one page of the column at a
// time (and its dictionary). Not thread-safe.
class TextColumn {
 public:
  virtual ~TextColumn() = default;
  // Replaces `text` by the bytes of the next value (not checked for UTF-8). False at the end. Throws DataError.
  virtual bool next(std::string& text) = 0;
  virtual std::uint64_t row() const = 0;           // of the value returned last, from 1
  virtual std::uint64_t stored_bytes() const = 0;  // of the file, in proportion to the rows read
  virtual std::string name() const = 0;            // of the column: "text", "article", "a.list.element"
};

// The rows of one parquet file in order, each as a JSON object: lists, structs, strings, numbers, booleans and null; what
// else there is (times, decimals) as Arrow prints it. Holds a few hundred rows at a time. Not thread-safe.
class JsonRows {
 public:
  virtual ~JsonRows() = default;
  // Replaces `row` by the text of the next object (strings are not checked for UTF-8). False at the end. Throws DataError.
  virtual bool next(std::string& row) = 0;
  virtual std::uint64_t row() const = 0;           // the one returned last, from 1
  virtual std::uint64_t stored_bytes() const = 0;  // of the file, in proportion to the rows read
};

struct ArrowModule {
  int version;  // kArrowModuleVersion of the module
  // `column`: a name, or a path (a.list.element) inside nested ones; empty: "text" if there is one, or else the only
  // column of strings, or, where there is none, the only one of binary values. Throws DataError, naming the columns when
  // none fits or several do.
  std::unique_ptr<TextColumn> (*open_parquet)(const std::filesystem::path& path, const std::string& column);
  // `columns`: names at the top; those the file lacks are passed over, and empty means all. Throws DataError, naming the
  // file's columns when it has none of them.
  std::unique_ptr<JsonRows> (*open_parquet_rows)(const std::filesystem::path& path, const std::vector<std::string>& columns);
  // Decompresses concatenated zstd frames; `name` is for messages.
  std::unique_ptr<ByteSource> (*open_zstd)(std::unique_ptr<ByteSource> source, const std::string& name);
};

constexpr int kArrowModuleVersion = 3;
constexpr const char* kArrowModuleEntry = "nanochat_arrow_module";  // const ArrowModule* (*)(), extern "C"

// open_parquet and open_parquet_rows of the module. A Git LFS pointer throws DataError.
std::unique_ptr<TextColumn> open_text_column(const std::filesystem::path& path, const std::string& column);
std::unique_ptr<JsonRows> open_json_rows(const std::filesystem::path& path, const std::vector<std::string>& columns);

// Loads the module once. Throws DataError saying how to get it, for the sake of `file`, where it cannot be had.
const ArrowModule& arrow_module(const std::filesystem::path& file);

}  // namespace nanochat
