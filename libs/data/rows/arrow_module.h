#pragma once
// Interface to Arrow: text and rows from parquet files, and zstd streams. Both sides of a boundary include it:
//
// libparquet.so and libarrow.so from the wheel export their own copy of OpenSSL and of parts of
// other libraries. Linked into the program, these would replace the symbols that libcurl and libssl
// need. All code that uses Arrow is therefore a module, arrow/*.cpp, loaded with RTLD_LOCAL when
// the first file needs it (arrow_loader.cpp). Its symbols stay private, and programs that read no
// parquet start without loading 60 MB. A build without Arrow has arrow_none.cpp in its place.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/rows/byte_source.h"

namespace nanochat {

// The values of one column of a parquet file in order, without nulls. Holds
// one page of the column (and its dictionary) in memory. Not thread-safe.
class TextColumn {
 public:
  virtual ~TextColumn() = default;
  // Replaces `text` by the bytes of the next value (not checked for UTF-8). False at the end. Throws DataError.
  virtual bool next(std::string& text) = 0;
  virtual std::uint64_t row() const = 0;           // number of the value returned last, from 1
  virtual std::uint64_t stored_bytes() const = 0;  // position in the file, in proportion to the rows read
  virtual std::string name() const = 0;            // name of the column: "text", "article", "a.list.element"
};

// The rows of a parquet file in order, each as a JSON object: lists, structs, strings, numbers, booleans and
// null; other types (times, decimals) as Arrow prints them. Holds a few hundred rows in memory. Not thread-safe.
class JsonRows {
 public:
  virtual ~JsonRows() = default;
  // Replaces `row` by the text of the next object (strings are not checked for UTF-8). False at the end. Throws DataError.
  virtual bool next(std::string& row) = 0;
  virtual std::uint64_t row() const = 0;           // number of the row returned last, from 1
  virtual std::uint64_t stored_bytes() const = 0;  // position in the file, in proportion to the rows read
};

struct ArrowModule {
  int version;  // kArrowModuleVersion of the module
  // `column`: a name, or a path (a.list.element) in nested columns. Empty: "text" if
  // it exists, otherwise the only column of strings, otherwise the only one of binary
  // values. Throws DataError with the names of the columns if none or several fit.
  std::unique_ptr<TextColumn> (*open_parquet)(const std::filesystem::path& path, const std::string& column);
  // `columns`: top-level names; missing ones are skipped, and empty means
  // all. Throws DataError with the file's columns if it has none of them.
  std::unique_ptr<JsonRows> (*open_parquet_rows)(const std::filesystem::path& path, const std::vector<std::string>& columns);
  // Decompresses concatenated zstd frames; `name` is for messages.
  std::unique_ptr<ByteSource> (*open_zstd)(std::unique_ptr<ByteSource> source, const std::string& name);
};

constexpr int kArrowModuleVersion = 3;
constexpr const char* kArrowModuleEntry = "nanochat_arrow_module";  // const ArrowModule* (*)(), extern "C"

// open_parquet and open_parquet_rows of the module. A Git LFS pointer throws DataError.
std::unique_ptr<TextColumn> open_text_column(const std::filesystem::path& path, const std::string& column);
std::unique_ptr<JsonRows> open_json_rows(const std::filesystem::path& path, const std::vector<std::string>& columns);

// Loads the module once. If it is not available, throws DataError for `file` that says how to get it.
const ArrowModule& arrow_module(const std::filesystem::path& file);

}  // namespace nanochat
