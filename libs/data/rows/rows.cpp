#include "data/rows/rows.h"

#include <algorithm>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/json_input.h"
#include "data/rows/arrow_module.h"
#include "data/rows/byte_source.h"
#include "data/rows/paths.h"

namespace nanochat {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxLine = std::size_t{1} << 30;
constexpr std::size_t kMaxJsonFile = std::size_t{4} << 30;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Where each value of a text that holds several begins and ends, by strings and brackets alone.
struct Piece {
  std::size_t begin = 0, end = 0;
  std::uint64_t line = 1;
};

class Splitter {
 public:
  Splitter(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}

  // Values of [begin, end): one after the other, or with commas between them.
  std::vector<Piece> split(std::size_t begin, std::size_t end, bool commas) {
    std::vector<Piece> pieces;
    at_ = begin;
    for (bool first = true;; first = false) {
      skip_space(end);
      if (at_ == end && (first || !commas)) return pieces;
      if (commas && !first) {
        if (text_[at_] != ',') fail(fmt::format("found '{}', expected a comma", printable(text_[at_])));
        ++at_;
        skip_space(end);
      }
      Piece piece{at_, at_, line_};
      skip_value(end);
      piece.end = at_;
      if (piece.end == piece.begin) fail(at_ == end ? "nothing after a comma" : "found ',', expected a value");
      pieces.push_back(piece);
      if (commas) {
        skip_space(end);
        if (at_ == end) return pieces;
      }
    }
  }
  void set_line(std::uint64_t line) { line_ = line; }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(fmt::format("{}:{}: malformed JSON: {}", name_, line_, what));
  }
  static std::string printable(char c) { return c >= 0x20 && c < 0x7f ? std::string(1, c) : "a byte that is not ASCII"; }

  void step() {
    if (text_[at_++] == '\n') ++line_;
  }
  void skip_space(std::size_t end) {
    while (at_ < end && is_space(text_[at_])) step();
  }
  void skip_value(std::size_t end) {
    std::size_t depth = 0;
    const std::uint64_t first_line = line_;
    while (at_ < end) {
      const char c = text_[at_];
      if (c == '"') {
        skip_string(end);
      } else if (c == '{' || c == '[') {
        ++depth;
        ++at_;
      } else if (c == '}' || c == ']') {
        if (depth == 0) fail(fmt::format("'{}' closes nothing", c));
        --depth;
        ++at_;
      } else if (depth == 0 && (c == ',' || is_space(c))) {
        return;
      } else {
        step();
        continue;
      }
      if (depth == 0) return;
    }
    if (depth > 0) {
      line_ = first_line;
      fail("the value that begins here does not end");
    }
  }
  void skip_string(std::size_t end) {
    const std::uint64_t first_line = line_;
    for (++at_; at_ < end && text_[at_] != '"'; step()) {
      if (text_[at_] == '\\' && at_ + 1 < end) ++at_;
    }
    if (at_ == end) {
      line_ = first_line;
      fail("a string that begins here does not end");
    }
    ++at_;
  }

  std::string_view text_;
  std::string name_;
  std::size_t at_ = 0;
  std::uint64_t line_ = 1;
};

class JsonlRows final : public RowReader {
 public:
  JsonlRows(std::string name, std::unique_ptr<ByteSource> source) : name_(std::move(name)), lines_(std::move(source)) {}

  bool next(Row& row) override {
    while (lines_.next(line_, kMaxLine)) {
      if (!lines_.ends_line()) {
        throw DataError(fmt::format("{}:{}: a line of more than {} is no row", name_, lines_.line_number(),
                                    human_bytes(static_cast<double>(kMaxLine))));
      }
      if (std::all_of(line_.begin(), line_.end(), is_space)) continue;
      row.where = fmt::format("{}:{}", name_, lines_.line_number());
      parse_row(line_, row);
      return true;
    }
    return false;
  }
  std::uint64_t stored_bytes() const override { return lines_.stored_bytes(); }

 private:
  std::string name_, line_;
  LineReader lines_;
};

class JsonFileRows final : public RowReader {
 public:
  JsonFileRows(std::string name, ByteSource& source) : name_(std::move(name)) {
    char buffer[1 << 16];
    for (std::size_t n = 0; (n = source.read(buffer, sizeof buffer)) > 0;) {
      text_.append(buffer, n);
      if (text_.size() > kMaxJsonFile) {
        throw DataError(fmt::format("{}: a .json of more than {}, which is read whole; use a .jsonl", name_,
                                    human_bytes(static_cast<double>(kMaxJsonFile))));
      }
    }
    stored_bytes_ = source.stored_bytes();
    const std::size_t begin = text_.starts_with("\xef\xbb\xbf") ? 3 : 0;
    pieces_ = Splitter(text_, name_).split(begin, text_.size(), /*commas=*/false);
    if (pieces_.size() == 1 && text_[pieces_[0].begin] == '[') split_array(pieces_[0]);
  }

  bool next(Row& row) override {
    if (at_ == pieces_.size()) return false;
    const Piece& piece = pieces_[at_++];
    row.where = fmt::format("{}:{}", name_, piece.line);
    parse_row(std::string_view(text_).substr(piece.begin, piece.end - piece.begin), row);
    return true;
  }
  std::uint64_t stored_bytes() const override { return pieces_.empty() ? stored_bytes_ : stored_bytes_ * at_ / pieces_.size(); }

 private:
  void split_array(const Piece& array) {
    Splitter splitter(text_, name_);
    splitter.set_line(array.line);
    std::vector<Piece> elements = splitter.split(array.begin + 1, array.end - 1, /*commas=*/true);
    if (!elements.empty()) {
      Row row;
      const Piece& first = elements[0];
      parse_row(std::string_view(text_).substr(first.begin, first.end - first.begin), row);
      const auto has = [&](const char* key) { return row.value.is_object() && row.value.contains(key); };
      if (has("role") || (has("from") && has("value"))) return;  // the array is a conversation
    }
    pieces_ = std::move(elements);
  }

  std::string name_, text_;
  std::vector<Piece> pieces_;
  std::size_t at_ = 0;
  std::uint64_t stored_bytes_ = 0;
};

class ParquetFileRows final : public RowReader {
 public:
  ParquetFileRows(const std::filesystem::path& path, const std::vector<std::string>& columns)
      : name_(name_of(path)), rows_(open_json_rows(path, columns)) {}

  bool next(Row& row) override {
    if (!rows_->next(text_)) return false;
    row.where = fmt::format("{}: row {}", name_, rows_->row());
    parse_row(text_, row);
    return true;
  }
  std::uint64_t stored_bytes() const override { return rows_->stored_bytes(); }

 private:
  std::string name_, text_;
  std::unique_ptr<JsonRows> rows_;
};

}  // namespace

void parse_row(std::string_view text, Row& row) {
  row.text = text;
  JsonFault fault;
  parse_json_input(text, row.value, fault);
  row.fault = fault.what;
  row.fault_kind = fault.what.empty() ? "" : fault.not_utf8 ? "invalid-utf8" : "malformed-json";
}

json first_row(const std::filesystem::path& file) {
  try {
    JsonlRows rows(name_of(file), open_bytes(file));
    Row row;
    return rows.next(row) ? row.value : json();
  } catch (const DataError&) {
    return nullptr;
  }
}

nlohmann::ordered_json value_in_order(const Row& row) {
  using nlohmann::ordered_json;
  const ordered_json value = ordered_json::parse(repair_json_input(row.text), nullptr, /*allow_exceptions=*/false);
  return value.is_discarded() ? ordered_json(row.value) : value;
}

std::unique_ptr<RowReader> open_rows(const std::filesystem::path& file, const std::vector<std::string>& columns) {
  FileFormat format = form_of(file).format;
  if (format == FileFormat::kParquet && !is_stream(file)) return std::make_unique<ParquetFileRows>(file, columns);
  std::unique_ptr<ByteSource> source = open_bytes(file);
  if (is_stream(file)) {
    constexpr std::size_t kSeen = 4096;
    auto peeked = std::make_unique<PeekedSource>(std::move(source));
    const FileFormat found = format_of(peeked->peek(kSeen));
    if (found == FileFormat::kParquet) {  // it is read from its end
      return std::make_unique<ParquetFileRows>(seekable(file, *peeked), columns);
    }
    if (format == FileFormat::kUnknown) format = found;
    source = std::move(peeked);
  }
  if (format == FileFormat::kJson) return std::make_unique<JsonFileRows>(name_of(file), *source);
  return std::make_unique<JsonlRows>(name_of(file), std::move(source));
}

std::vector<std::filesystem::path> expand_row_paths(const std::vector<std::string>& paths) {
  return expand_paths(paths, {FileFormat::kJsonLines, FileFormat::kJson, FileFormat::kParquet}, "conversations or tasks",
                      /*streams=*/true);
}

}  // namespace nanochat
