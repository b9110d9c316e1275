// One column of text of a parquet file, through Parquet's own column readers: they decode a page at a time, where
// Arrow's tables would hold a row group.
#include "data/rows/arrow/parquet_column.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include <parquet/column_reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>

#include "core/errors.h"
#include "data/rows/arrow/parquet_file.h"

namespace nanochat {
namespace {

constexpr std::int64_t kBatch = 1024;

std::string path_of(const parquet::ColumnDescriptor& column) { return column.path()->ToDotString(); }

bool is_annotated_text(const parquet::ColumnDescriptor& column) {
  const auto& type = column.logical_type();
  return type && (type->is_string() || type->is_enum() || type->is_JSON());
}

bool is_text(const parquet::ColumnDescriptor& column) {
  if (column.physical_type() != parquet::Type::BYTE_ARRAY) return false;
  const auto& type = column.logical_type();
  return is_annotated_text(column) || !type || type->is_none();
}

std::string type_of(const parquet::ColumnDescriptor& column) {
  const auto& type = column.logical_type();
  if (type && !type->is_none() && type->is_valid()) return type->ToString();
  return parquet::TypeToString(column.physical_type());
}

std::string list(const std::vector<const parquet::ColumnDescriptor*>& columns) {
  constexpr std::size_t kShown = 30;
  std::string names;
  for (std::size_t i = 0; i < std::min(columns.size(), kShown); ++i) {
    names += (i > 0 ? ", " : "") + printable_line(path_of(*columns[i])) + " (" + type_of(*columns[i]) + ")";
  }
  if (columns.size() > kShown) names += " and " + std::to_string(columns.size() - kShown) + " more";
  return names;
}

class ParquetColumn final : public TextColumn {
 public:
  ParquetColumn(const std::filesystem::path& path, const std::string& name) : source_(path) {
    source_.guarded([&] {
      file_ = source_.open();
      metadata_ = file_->metadata();
      choose(name);
    });
  }

  bool next(std::string& text) override {
    return source_.guarded([&] {
      for (;;) {
        while (level_ < levels_) {
          const auto at = static_cast<std::size_t>(level_++);
          if (max_repetition_ == 0 || repetitions_[at] == 0) source_.advance();
          if (max_definition_ > 0 && definitions_[at] != max_definition_) continue;  // null, or an empty list
          if (value_ == values_) source_.fail("a page holds fewer values than it says");
          const parquet::ByteArray& value = batch_[static_cast<std::size_t>(value_++)];
          text.assign(reinterpret_cast<const char*>(value.ptr), value.len);
          return true;
        }
        if (!read_batch()) return false;
      }
    });
  }

  std::uint64_t row() const override { return source_.row(); }
  std::uint64_t stored_bytes() const override { return source_.stored_bytes(); }
  std::string name() const override { return name_; }

 private:
  // The text where no column is named: "text", or the only one that can be it. Null when none can.
  const parquet::ColumnDescriptor* choose_among(const std::vector<const parquet::ColumnDescriptor*>& text) const {
    for (const auto* column : text) {
      if (column->name() == "text") return column;
    }
    std::vector<const parquet::ColumnDescriptor*> candidates;
    std::copy_if(text.begin(), text.end(), std::back_inserter(candidates),
                 [](const auto* column) { return is_annotated_text(*column); });
    if (candidates.empty()) candidates = text;
    if (candidates.size() > 1) {
      throw DataError(source_.path() + ": no column \"text\", and several that could be meant: " + list(candidates) +
                      "; name one with --text-column");
    }
    return candidates.empty() ? nullptr : candidates[0];
  }

  void choose(const std::string& name) {
    const parquet::SchemaDescriptor& schema = *metadata_->schema();
    std::vector<const parquet::ColumnDescriptor*> all, text, inside;
    const parquet::ColumnDescriptor* chosen = nullptr;
    for (int i = 0; i < schema.num_columns(); ++i) {
      const parquet::ColumnDescriptor* column = schema.Column(i);
      const std::string path = path_of(*column);
      all.push_back(column);
      if (path == name) chosen = column;
      if (path.size() > name.size() && path.starts_with(name) && path[name.size()] == '.') inside.push_back(column);
      if (is_text(*column) && column->path()->ToDotVector().size() == 1) text.push_back(column);
    }
    if (name.empty()) {
      chosen = choose_among(text);
      if (chosen == nullptr) {
        throw DataError(source_.path() + ": no column of strings or binary values; the columns are: " + list(all) +
                        "; one inside another is read when it is named (--text-column)");
      }
    } else if (chosen == nullptr && inside.size() == 1) {
      chosen = inside[0];  // a list of strings, by the name of the list
    } else if (chosen == nullptr) {
      throw DataError(source_.path() + ": no column \"" + name + "\"; the columns are: " + list(inside.empty() ? all : inside));
    }
    if (!is_text(*chosen)) {
      throw DataError(source_.path() + ": column \"" + printable_line(path_of(*chosen)) + "\" is " + type_of(*chosen) +
                      ", expected strings or binary values; the columns are: " + list(all));
    }
    column_ = schema.ColumnIndex(*chosen->schema_node());
    name_ = path_of(*chosen);
    max_definition_ = chosen->max_definition_level();
    max_repetition_ = chosen->max_repetition_level();
  }

  // False at the end of the file.
  bool read_batch() {
    level_ = levels_ = value_ = values_ = 0;
    for (;;) {
      if (!reader_) {
        if (group_ == metadata_->num_row_groups()) return false;
        begin_group();
      }
      if (reader_->HasNext()) {
        levels_ = reader_->ReadBatch(kBatch, definitions_.data(), repetitions_.data(), batch_.data(), &values_);
        levels_read_ += levels_;
        if (levels_ > 0) return true;
      }
      end_group();
    }
  }

  void begin_group() {
    group_reader_ = file_->RowGroup(group_);
    const std::shared_ptr<parquet::ColumnReader> column = group_reader_->Column(column_);
    if (column->type() != parquet::Type::BYTE_ARRAY) source_.fail("a row group has another type of column than the file");
    reader_ = std::static_pointer_cast<parquet::ByteArrayReader>(column);
    levels_read_ = 0;
    rows_before_ = source_.row();
  }

  // Damage can end a column early without an error from Arrow.
  void end_group() {
    const auto group = metadata_->RowGroup(group_);
    const std::int64_t promised = group->ColumnChunk(column_)->num_values();
    if (levels_read_ != promised) {
      source_.fail("row group " + std::to_string(group_) + " has " + std::to_string(levels_read_) + " values of " +
                   std::to_string(promised));
    }
    const auto rows = static_cast<std::int64_t>(source_.row() - rows_before_);
    if (rows != group->num_rows()) {
      source_.fail("row group " + std::to_string(group_) + " has " + std::to_string(rows) + " rows of " +
                   std::to_string(group->num_rows()));
    }
    reader_.reset();
    group_reader_.reset();
    ++group_;
  }

  ParquetFile source_;  // before everything that allocates from its pool
  std::unique_ptr<parquet::ParquetFileReader> file_;
  std::shared_ptr<parquet::FileMetaData> metadata_;
  std::string name_;
  int column_ = 0, group_ = 0;
  std::int16_t max_definition_ = 0, max_repetition_ = 0;

  std::shared_ptr<parquet::RowGroupReader> group_reader_;
  std::shared_ptr<parquet::ByteArrayReader> reader_;
  std::array<std::int16_t, kBatch> definitions_{}, repetitions_{};
  std::array<parquet::ByteArray, kBatch> batch_{};  // point into a page, until the next batch is read
  std::int64_t level_ = 0, levels_ = 0, value_ = 0, values_ = 0;  // of the batch
  std::int64_t levels_read_ = 0;                                  // of the row group
  std::uint64_t rows_before_ = 0;
};

}  // namespace

std::unique_ptr<TextColumn> open_parquet_column(const std::filesystem::path& path, const std::string& column) {
  return std::make_unique<ParquetColumn>(path, column);
}

}  // namespace nanochat
