#include "data/documents.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "data/arrow_module.h"
#include "data/byte_source.h"
#include "data/json_text.h"
#include "data/paths.h"

namespace nanochat {
namespace {

constexpr std::size_t kMaxJsonLine = std::size_t{1} << 30;
constexpr int kMaxBlankLines = 3;

std::string name_of(const std::filesystem::path& path) {
  return path == kStandardInput ? "standard input" : path.string();
}

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

class LineFileReader : public FileReader {
 public:
  LineFileReader(std::string name, std::unique_ptr<ByteSource> source)
      : name_(std::move(name)), lines_(std::move(source)) {}
  std::uint64_t stored_bytes() const override { return lines_.stored_bytes(); }

 protected:
  std::string where() const { return fmt::format("{}:{}", name_, lines_.line_number()); }

  void check_utf8(std::string_view text) const {
    const std::size_t valid = valid_bytes(text);
    if (valid == text.size()) return;
    const std::uint64_t offset = lines_.byte_offset() + valid;
    const auto byte = static_cast<unsigned char>(text[valid]);
    const bool utf16 = offset == 0 && byte >= 0xfe;
    throw DataError(fmt::format("{}: invalid UTF-8 at byte {} (0x{:02x}){}; convert the file to UTF-8", where(), offset,
                                byte, utf16 ? ", it looks like UTF-16" : ""));
  }

  std::string name_;
  LineReader lines_;
};

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\v\f") == std::string_view::npos; }

class TextReader : public LineFileReader {
 public:
  TextReader(std::string name, std::unique_ptr<ByteSource> source, const ReaderOptions& options)
      : LineFileReader(std::move(name), std::move(source)),
        min_bytes_(static_cast<std::size_t>(std::max<std::int64_t>(options.min_document_bytes, 1))),
        max_bytes_(std::max(static_cast<std::size_t>(std::max<std::int64_t>(options.max_document_bytes, 8)),
                            8 * min_bytes_)) {}

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
    continues_line_ = !lines_.ends_line();
    if (!lines_.next(line_, max_bytes_)) return false;
    check_utf8(line_);
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

class JsonlReader : public LineFileReader {
 public:
  JsonlReader(std::string name, std::unique_ptr<ByteSource> source, const std::string& text_key)
      : LineFileReader(std::move(name), std::move(source)), text_key_(text_key.empty() ? "text" : text_key) {}

  bool next(std::string& document) override {
    while (lines_.next(line_, kMaxJsonLine)) {
      if (!lines_.ends_line()) {
        throw DataError(fmt::format("{}: a line of more than {} is no document", where(), human_bytes(kMaxJsonLine)));
      }
      if (is_blank(line_)) continue;
      if (!find_json_text(line_, text_key_, document)) document = parse();  // slower, and says what is wrong
      if (!document.empty()) return true;
    }
    return false;
  }

 private:
  std::string parse() const {
    nlohmann::json row;
    try {
      row = nlohmann::json::parse(line_);
    } catch (const nlohmann::json::parse_error& error) {
      check_utf8(line_);
      throw DataError(fmt::format("{}: malformed JSON at byte {} of the line", where(), error.byte));
    }
    if (!row.is_object()) {
      throw DataError(fmt::format("{}: found JSON {} where an object with the key \"{}\" would be right", where(),
                                  row.type_name(), text_key_));
    }
    const auto text = row.find(text_key_);
    if (text == row.end()) {
      std::string keys;
      for (const auto& item : row.items()) keys += (keys.empty() ? "" : ", ") + item.key();
      throw DataError(fmt::format("{}: no key \"{}\"; the keys are: {}", where(), text_key_, keys));
    }
    if (!text->is_string()) {
      throw DataError(fmt::format("{}: \"{}\" is a JSON {} where a string would be right", where(), text_key_,
                                  text->type_name()));
    }
    return std::move(text->get_ref<std::string&>());
  }

  std::string text_key_, line_;
};

class ParquetReader : public FileReader {
 public:
  ParquetReader(const std::filesystem::path& path, const std::string& text_key)
      : name_(path.string()), column_(arrow_module(path).open_parquet(path, text_key)) {}

  bool next(std::string& document) override {
    while (column_->next(document)) {
      const std::size_t valid = valid_bytes(document);
      if (valid < document.size()) {
        throw DataError(fmt::format("{}: invalid UTF-8 at byte {} (0x{:02x}) of row {}; text in UTF-8 would be right",
                                    name_, valid, static_cast<unsigned char>(document[valid]), column_->row()));
      }
      if (!document.empty()) return true;
    }
    return false;
  }
  std::uint64_t stored_bytes() const override { return column_->stored_bytes(); }

 private:
  std::string name_;
  std::unique_ptr<TextColumn> column_;
};

class CorpusReader : public DocumentReader {
 public:
  CorpusReader(std::vector<std::filesystem::path> files, ReaderOptions options)
      : files_(std::move(files)), options_(std::move(options)) {
    for (const std::filesystem::path& file : files_) {
      std::error_code error;
      if (file == kStandardInput) {
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
  std::unique_ptr<FileReader> open(const std::filesystem::path& file) const {
    if (file == kStandardInput) return open_standard_input();
    std::filesystem::path extension = file.extension();
    if (extension == ".parquet") return std::make_unique<ParquetReader>(file, options_.text_key);
    if (extension == ".gz" || extension == ".zst") extension = file.stem().extension();
    if (extension == ".jsonl") return std::make_unique<JsonlReader>(name_of(file), open_bytes(file), options_.text_key);
    return std::make_unique<TextReader>(name_of(file), open_bytes(file), options_);
  }

  // Has no name to tell what it holds: text that begins with a brace is .jsonl.
  std::unique_ptr<FileReader> open_standard_input() const {
    const std::string name = name_of(kStandardInput);
    auto source = std::make_unique<PeekedSource>(open_bytes(kStandardInput));
    constexpr std::size_t kSeen = 4096;
    std::string_view begin = source->peek(kSeen);
    if (begin.starts_with("PAR1")) {
      throw DataError(fmt::format("{}: a .parquet is read from its end; name the file itself", name));
    }
    if (begin.starts_with("\xef\xbb\xbf")) begin.remove_prefix(3);
    const std::size_t first = begin.find_first_not_of(" \t\r\n");
    if (first != std::string_view::npos && begin[first] == '{') {
      return std::make_unique<JsonlReader>(name, std::move(source), options_.text_key);
    }
    return std::make_unique<TextReader>(name, std::move(source), options_);
  }

  std::vector<std::filesystem::path> files_;
  std::vector<std::uint64_t> sizes_;
  ReaderOptions options_;
  std::unique_ptr<FileReader> reader_;
  std::size_t file_ = 0;
  std::uint64_t finished_ = 0, total_ = 0;
  bool any_ = false;
};

}  // namespace

std::vector<std::filesystem::path> expand_paths(const std::vector<std::string>& paths) {
  return expand_paths(paths, {".txt", ".jsonl", ".parquet", ".txt.gz", ".jsonl.gz", ".txt.zst", ".jsonl.zst"}, "text",
                      /*standard_input=*/true);
}

std::unique_ptr<DocumentReader> open_documents(std::vector<std::filesystem::path> files, const ReaderOptions& options) {
  return std::make_unique<CorpusReader>(std::move(files), options);
}

}  // namespace nanochat
