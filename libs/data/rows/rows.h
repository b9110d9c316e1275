#pragma once
// Rows of JSON lines, JSON and parquet as JSON values, for conversations and tasks.
// file_form.h defines how the format is detected; .parquet and .zst need a build with Arrow.
//
// JSON lines have one value per line; blank lines are skipped. A .json has either one array whose elements are
// the rows, or values one after the other, one row each; it is read whole. One array of messages ({"role", ...}
// or {"from", "value"}) is one row: a conversation. The rows of a .parquet are objects. A stream that begins
// with "[" is a .json, one that begins like parquet is copied to a temporary file, and any other is JSON lines.
//
// core/json_input.h defines the accepted JSON: half a surrogate pair becomes
// U+FFFD, as in the reference's tokenizer. \u0000 is an ordinary character.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace nanochat {

struct Row {
  std::string where;       // "chat.jsonl:12", "chat.parquet: row 7"
  nlohmann::json value;    // null when there is a fault
  std::string fault;       // what keeps the text of the row from being JSON; empty when nothing does
  std::string fault_kind;  // of validate.h: "invalid-utf8" or "malformed-json"
  std::string_view text;   // as it stands in the file; until the reader's next row
};

// Not thread-safe.
class RowReader {
 public:
  virtual ~RowReader() = default;
  // False at the end of the file. Throws DataError for a problem of the file, not of
  // one row: unreadable, bad gzip, zstd or parquet, unclosed brackets of a .json.
  virtual bool next(Row& row) = 0;
  virtual std::uint64_t stored_bytes() const = 0;  // consumed of the file, for progress
};

// `columns`: columns of a .parquet to read (missing ones are skipped); empty: all.
std::unique_ptr<RowReader> open_rows(const std::filesystem::path& file, const std::vector<std::string>& columns = {});

// Files, folders and globs of such files (data/rows/paths.h), standard input ("-") and pipes.
std::vector<std::filesystem::path> expand_row_paths(const std::vector<std::string>& paths);

// The first row of a file of JSON lines; null if it cannot be read, or is null.
nlohmann::json first_row(const std::filesystem::path& file);

// Sets all of `row` except its place from its text, which must outlive it.
void parse_row(std::string_view text, Row& row);

// The value of a row without a fault, with the order of its keys, which Row::value does not keep.
nlohmann::ordered_json value_in_order(const Row& row);

}  // namespace nanochat
