#include "data/text/documents.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/json_input.h"
#include "core/log.h"
#include "data/rows/arrow_module.h"
#include "data/rows/byte_source.h"
#include "data/rows/paths.h"
#include "data/rows/rows.h"
#include "data/text/json_text.h"

namespace nanochat {
namespace {

constexpr std::size_t kMaxJsonLine = std::size_t{1} << 30;
constexpr int kMaxBlankLines = 3;

// The bytes before the first that begins no character; of the whole text when all is well.
std::size_t valid_bytes(std::string_view text) {
  if (is_valid_utf8(text)) return text.size();
  std::size_t valid = 0;
  for (std::size_t length = 1; length <= 4 && valid + length <= text.size();) {
    if (is_valid_utf8(text.substr(valid, length))) {
      valid += length;
      length = 1;
    } else {
      ++length;
    }
  }
  return valid;
}

// One file.
class FileReader {
 public:
  virtual ~FileReader() = default;
  virtual bool next(std::string& document) = 0;
  virtual std::uint64_t stored_bytes() const = 0;
};

// What a reader does with a row that it cannot read.
class RowPolicy {
 public:
  explicit RowPolicy(const ReaderOptions& options) : bad_rows_(options.bad_rows) {}
  void bad(const std::string& what) const {
    if (!bad_rows_) throw DataError(what);
    bad_rows_->add(what);
  }

 private:
  std::shared_ptr<BadRows> bad_rows_;
};

class LineFileReader : public FileReader {
 public:
  LineFileReader(std::string name, std::unique_ptr<ByteSource> source, const ReaderOptions& options)
      : name_(std::move(name)), lines_(std::move(source)), policy_(options) {}
  std::uint64_t stored_bytes() const override { return lines_.stored_bytes(); }

 protected:
  std::string where() const { return fmt::format("{}:{}", name_, lines_.line_number()); }

  // Where the first byte of the line stands that begins no character; empty when all is well.
  std::string utf8_fault(std::string_view text) const {
    const std::size_t valid = valid_bytes(text);
    if (valid == text.size()) return {};
    const std::uint64_t offset = lines_.byte_offset() + valid;
    const auto byte = static_cast<unsigned char>(text[valid]);
    const bool utf16 = offset == 0 && byte >= 0xfe;
    return fmt::format("{}: invalid UTF-8 at byte {} (0x{:02x}){}; convert the file to UTF-8", where(), offset, byte,
                       utf16 ? ", it looks like UTF-16" : "");
  }

  std::string name_;
  LineReader lines_;
  RowPolicy policy_;
};

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\v\f") == std::string_view::npos; }

class TextReader : public LineFileReader {
 public:
  TextReader(std::string name, std::unique_ptr<ByteSource> source, const ReaderOptions& options)
      : LineFileReader(std::move(name), std::move(source), options),
        min_bytes_(static_cast<std::size_t>(std::max<std::int64_t>(options.min_document_bytes, 1))),
        max_bytes_(std::max(static_cast<std::size_t>(std::max<std::int64_t>(options.max_document_bytes, 8)), 8 * min_bytes_)) {}

  // The last whole document waits until another is whole, since a short remainder of the file may join it.
  bool next(std::string& document) override {
    while (!at_end_) {
      if (!read_document()) {
        at_end_ = true;
        if (building_.size() < min_bytes_ && waiting_ && !building_.empty()) {
          *waiting_ += std::string(static_cast<std::size_t>(gap_before_), '\n') + building_;
          building_.clear();
        }
      }
      if (building_.empty()) continue;
      std::optional<std::string> previous = std::exchange(waiting_, std::exchange(building_, {}));
      if (previous) {
        document = std::move(*previous);
        return true;
      }
    }
    if (!waiting_) return false;
    document = std::move(*waiting_);
    waiting_.reset();
    return true;
  }

 private:
  // Collects lines in building_ until it is a whole document; false at the end of the file.
  bool read_document() {
    while (pending_ || read_line()) {
      if (blank_) {
        pending_ = false;
        ++blank_lines_;
        if (building_.size() >= min_bytes_) return true;
        continue;
      }
      if (building_.size() >= min_bytes_ && building_.size() + line_.size() >= max_bytes_) {
        blank_lines_ = 0;
        return true;  // the line stays pending
      }
      const int gap = continues_line_ ? 0 : 1 + std::min(blank_lines_, kMaxBlankLines);
      if (building_.empty()) {
        gap_before_ = gap;
      } else {
        building_.append(static_cast<std::size_t>(gap), '\n');
      }
      blank_lines_ = 0;
      building_ += line_;
      pending_ = false;
    }
    return false;
  }

  bool read_line() {
    for (;;) {
      continues_line_ = !lines_.ends_line();
      if (!lines_.next(line_, max_bytes_)) return false;
      const std::string fault = utf8_fault(line_);
      if (fault.empty()) break;
      policy_.bad(fault);
    }
    blank_ = !continues_line_ && is_blank(line_);
    pending_ = true;
    return true;
  }

  std::size_t min_bytes_, max_bytes_;
  std::string line_, building_;
  std::optional<std::string> waiting_;
  int blank_lines_ = 0;   // since the last line with text
  int gap_before_ = 0;    // line feeds between waiting_ and building_
  bool pending_ = false;  // line_ is read and not yet used
  bool blank_ = false, continues_line_ = false, at_end_ = false;
};

const std::string& text_column_of(const ReaderOptions& options) {
  static const std::string preset = "text";
  return options.text_column.empty() ? preset : options.text_column;
}

class JsonlReader : public LineFileReader {
 public:
  JsonlReader(std::string name, std::unique_ptr<ByteSource> source, const ReaderOptions& options)
      : LineFileReader(std::move(name), std::move(source), options), text_column_(text_column_of(options)) {}

  bool next(std::string& document) override {
    while (lines_.next(line_, kMaxJsonLine)) {
      if (!lines_.ends_line()) {
        policy_.bad(fmt::format("{}: a line of more than {} is no document", where(), human_bytes(kMaxJsonLine)));
        while (!lines_.ends_line() && lines_.next(line_, kMaxJsonLine)) {
        }
        continue;
      }
      if (is_blank(line_)) continue;
      // The quick way fails for what it cannot read too; the slow one says what is wrong.
      if (!find_json_text(line_, text_column_, document)) {
        const std::string fault = parse(document);
        if (!fault.empty()) {
          policy_.bad(fault);
          continue;
        }
      }
      if (!document.empty()) return true;
    }
    return false;
  }

 private:
  // What keeps the row from being read; empty when `document` has its text.
  std::string parse(std::string& document) const {
    nlohmann::json row;
    JsonFault fault;
    if (!parse_json_input(line_, row, fault)) {
      if (fault.not_utf8) return utf8_fault(line_);
      if (fault.byte > 0) return fmt::format("{}: malformed JSON at byte {} of the line", where(), fault.byte);
      return fmt::format("{}: {}", where(), fault.what);
    }
    if (!row.is_object()) {
      return fmt::format("{}: found JSON {}, expected an object with the key \"{}\"", where(), row.type_name(), text_column_);
    }
    const auto text = row.find(text_column_);
    if (text == row.end()) {
      std::string keys;
      for (const auto& item : row.items()) keys += (keys.empty() ? "" : ", ") + item.key();
      return fmt::format("{}: no key \"{}\"; the keys are: {}; name the one that holds the text with --text-column", where(),
                         text_column_, on_one_line(keys));
    }
    if (!text->is_string()) {
      return fmt::format("{}: \"{}\" is a JSON {}, expected a string", where(), text_column_, text->type_name());
    }
    document = std::move(text->get_ref<std::string&>());
    return {};
  }

  std::string text_column_, line_;
};

class ParquetReader : public FileReader {
 public:
  ParquetReader(const std::filesystem::path& path, const ReaderOptions& options)
      : name_(name_of(path)), policy_(options), column_(open_text_column(path, options.text_column)) {}

  bool next(std::string& document) override {
    while (column_->next(document)) {
      const std::size_t valid = valid_bytes(document);
      if (valid < document.size()) {
        policy_.bad(fmt::format("{}: invalid UTF-8 at byte {} (0x{:02x}) of row {}, expected text in UTF-8", name_, valid,
                                static_cast<unsigned char>(document[valid]), column_->row()));
        continue;
      }
      if (!document.empty()) return true;
    }
    return false;
  }
  std::uint64_t stored_bytes() const override { return column_->stored_bytes(); }
  std::string column() const { return column_->name(); }

 private:
  std::string name_;
  RowPolicy policy_;
  std::unique_ptr<TextColumn> column_;
};

class CorpusReader : public DocumentReader {
 public:
  CorpusReader(std::vector<std::filesystem::path> files, ReaderOptions options)
      : files_(std::move(files)), options_(std::move(options)) {
    for (const std::filesystem::path& file : files_) {
      std::error_code error;
      if (is_stream(file) && !std::filesystem::is_regular_file(file, error)) {
        sizes_.push_back(0);  // unknown
        continue;
      }
      sizes_.push_back(std::filesystem::file_size(file, error));
      if (error) throw DataError(fmt::format("cannot open {}: {}", file.string(), error.message()));
      total_ += sizes_.back();
    }
  }

  bool next(std::string& document) override {
    while (reader_ || file_ < files_.size()) {
      if (!reader_) reader_ = open(files_[file_]);
      if (reader_->next(document)) {
        any_ = true;
        return true;
      }
      reader_.reset();
      finished_ += sizes_[file_++];
    }
    if (!any_) {
      throw DataError(fmt::format("no text in {}{}", files_.empty() ? "an empty list of files" : name_of(files_[0]),
                                  files_.size() > 1 ? fmt::format(" and {} more files", files_.size() - 1) : ""));
    }
    return false;
  }

  std::uint64_t bytes_read() const override {
    // A file may have grown since its size was taken.
    return finished_ + (reader_ ? std::min(reader_->stored_bytes(), sizes_[file_]) : 0);
  }
  std::uint64_t bytes_total() const override { return total_; }

 private:
  std::unique_ptr<FileReader> open(const std::filesystem::path& file) {
    FileFormat format = form_of(file).format;
    if (format == FileFormat::kParquet && !is_stream(file)) return open_parquet(file);
    std::unique_ptr<ByteSource> source = open_bytes(file);
    if (is_stream(file)) {
      auto peeked = std::make_unique<PeekedSource>(std::move(source));
      const FileFormat found = format_of(peeked->peek(kSeen));
      if (found == FileFormat::kParquet) return open_parquet(seekable(file, *peeked));  // it is read from its end
      if (format == FileFormat::kUnknown) format = found;
      source = std::move(peeked);
    }
    if (format == FileFormat::kJsonLines) return std::make_unique<JsonlReader>(name_of(file), std::move(source), options_);
    return std::make_unique<TextReader>(name_of(file), std::move(source), options_);
  }

  std::unique_ptr<FileReader> open_parquet(const std::filesystem::path& file) {
    auto reader = std::make_unique<ParquetReader>(file, options_);
    // A choice that nobody made is told, once for each name.
    if (options_.text_column.empty() && reader->column() != "text" && reader->column() != told_column_) {
      told_column_ = reader->column();
      log_info("{}: reads the text from the column \"{}\", the only one that can be it; none is named \"text\"", name_of(file),
               told_column_);
    }
    return reader;
  }

  static constexpr std::size_t kSeen = 4096;

  std::vector<std::filesystem::path> files_;
  std::vector<std::uint64_t> sizes_;
  ReaderOptions options_;
  std::unique_ptr<FileReader> reader_;
  std::string told_column_;
  std::size_t file_ = 0;
  std::uint64_t finished_ = 0, total_ = 0;
  bool any_ = false;
};

}  // namespace

std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths, const ReaderOptions& options) {
  const std::string& column = text_column_of(options);
  std::vector<std::filesystem::path> files, others;
  const auto found = find_files(paths, {FileFormat::kText, FileFormat::kJsonLines, FileFormat::kParquet}, "text",
                                /*streams=*/true);
  for (const FoundFile& file : found) {
    nlohmann::json row;
    if (file.in_folder && form_of(file.path).format == FileFormat::kJsonLines) row = first_row(file.path);
    const bool lacks_text = row.is_object() && !row.contains(column);
    (lacks_text ? others : files).push_back(file.path);
  }
  if (files.empty()) return others;  // the reader says which keys there are
  if (!others.empty()) {
    std::string names;
    for (const std::filesystem::path& file : others) names += (names.empty() ? "" : ", ") + file.string();
    log_info("passed over, since their rows have no \"{}\": {}", column, names);
  }
  return files;
}

std::unique_ptr<DocumentReader> open_documents(std::vector<std::filesystem::path> files, const ReaderOptions& options) {
  return std::make_unique<CorpusReader>(std::move(files), options);
}

}  // namespace nanochat
