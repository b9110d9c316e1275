// Whole rows of a parquet file as JSON, through Arrow's record batches: what lists and structs mean is theirs to say.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include <arrow/array.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/schema.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>

#include "core/errors.h"
#include "data/rows/arrow/parquet_column.h"
#include "data/rows/arrow/parquet_file.h"

namespace nanochat {
namespace {

constexpr std::int64_t kBatchRows = 256;
constexpr int kMaxDepth = 32;

void append_string(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      constexpr const char* kHex = "0123456789abcdef";
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

template <typename Number>
void append_number(Number value, std::string& out) {
  if constexpr (std::is_floating_point_v<Number>) {
    if (!std::isfinite(value)) {
      out += "null";
      return;
    }
  }
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  out.append(buffer, end);
}

void append_value(const arrow::Array& array, std::int64_t at, int depth, std::string& out);

// `list`: ListArray, LargeListArray or FixedSizeListArray.
template <typename List>
void append_list(const List& list, std::int64_t at, int depth, std::string& out) {
  out += '[';
  const auto begin = static_cast<std::int64_t>(list.value_offset(at));
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(list.value_length(at)); ++i) {
    if (i > 0) out += ',';
    append_value(*list.values(), begin + i, depth + 1, out);
  }
  out += ']';
}

void append_struct(const arrow::StructArray& array, std::int64_t at, int depth, std::string& out) {
  out += '{';
  for (int i = 0; i < array.num_fields(); ++i) {
    if (i > 0) out += ',';
    append_string(array.struct_type()->field(i)->name(), out);
    out += ':';
    append_value(*array.field(i), at, depth + 1, out);
  }
  out += '}';
}

void append_value(const arrow::Array& array, std::int64_t at, int depth, std::string& out) {
  if (depth > kMaxDepth) throw DataError("lists and structs are nested more than " + std::to_string(kMaxDepth) + " deep");
  if (array.IsNull(at)) {
    out += "null";
    return;
  }
  using arrow::Type;
  switch (array.type_id()) {
    case Type::STRING:
    case Type::BINARY: return append_string(static_cast<const arrow::BinaryArray&>(array).GetView(at), out);
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY: return append_string(static_cast<const arrow::LargeBinaryArray&>(array).GetView(at), out);
    case Type::BOOL: out += static_cast<const arrow::BooleanArray&>(array).Value(at) ? "true" : "false"; return;
    case Type::INT8: return append_number(static_cast<const arrow::Int8Array&>(array).Value(at), out);
    case Type::INT16: return append_number(static_cast<const arrow::Int16Array&>(array).Value(at), out);
    case Type::INT32: return append_number(static_cast<const arrow::Int32Array&>(array).Value(at), out);
    case Type::INT64: return append_number(static_cast<const arrow::Int64Array&>(array).Value(at), out);
    case Type::UINT8: return append_number(static_cast<const arrow::UInt8Array&>(array).Value(at), out);
    case Type::UINT16: return append_number(static_cast<const arrow::UInt16Array&>(array).Value(at), out);
    case Type::UINT32: return append_number(static_cast<const arrow::UInt32Array&>(array).Value(at), out);
    case Type::UINT64: return append_number(static_cast<const arrow::UInt64Array&>(array).Value(at), out);
    case Type::FLOAT: return append_number(static_cast<const arrow::FloatArray&>(array).Value(at), out);
    case Type::DOUBLE: return append_number(static_cast<const arrow::DoubleArray&>(array).Value(at), out);
    case Type::LIST:
    case Type::MAP: return append_list(static_cast<const arrow::ListArray&>(array), at, depth, out);
    case Type::LARGE_LIST: return append_list(static_cast<const arrow::LargeListArray&>(array), at, depth, out);
    case Type::FIXED_SIZE_LIST: return append_list(static_cast<const arrow::FixedSizeListArray&>(array), at, depth, out);
    case Type::STRUCT: return append_struct(static_cast<const arrow::StructArray&>(array), at, depth, out);
    case Type::DICTIONARY: {
      const auto& encoded = static_cast<const arrow::DictionaryArray&>(array);
      return append_value(*encoded.dictionary(), encoded.GetValueIndex(at), depth + 1, out);
    }
    default: break;
  }
  const auto scalar = array.GetScalar(at);
  append_string(scalar.ok() ? (*scalar)->ToString() : std::string(), out);
}

class ParquetRows final : public JsonRows {
 public:
  ParquetRows(const std::filesystem::path& path, const std::vector<std::string>& columns) : source_(path) {
    source_.guarded([&] { open(columns); });
  }

  bool next(std::string& row) override {
    return source_.guarded([&] {
      while (!batch_ || at_ == batch_->num_rows()) {
        at_ = 0;
        check(rows_->ReadNext(&batch_));
        if (!batch_) {
          if (source_.row() != static_cast<std::uint64_t>(std::max<std::int64_t>(total_rows_, 0))) {
            source_.fail("it holds " + std::to_string(source_.row()) + " rows of " + std::to_string(total_rows_));
          }
          return false;
        }
        check(batch_->Validate());
      }
      row.assign(1, '{');
      for (int i = 0; i < batch_->num_columns(); ++i) {
        if (i > 0) row += ',';
        append_string(batch_->column_name(i), row);
        row += ':';
        append_value(*batch_->column(i), at_, 0, row);
      }
      row += '}';
      ++at_;
      source_.advance();
      return true;
    });
  }

  std::uint64_t row() const override { return source_.row(); }
  std::uint64_t stored_bytes() const override { return source_.stored_bytes(); }

 private:
  void check(const arrow::Status& status) const {
    if (!status.ok()) source_.fail(status.message());
  }

  void open(const std::vector<std::string>& columns) {
    auto file = source_.open();
    const auto metadata = file->metadata();
    total_rows_ = metadata->num_rows();
    const std::vector<int> chosen = choose(*metadata->schema(), columns);
    parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
    arrow_properties.set_batch_size(kBatchRows);
    arrow_properties.set_pre_buffer(false);
    auto reader = parquet::arrow::FileReader::Make(&source_.pool(), std::move(file), arrow_properties);
    check(reader.status());
    file_ = std::move(*reader);
    std::vector<int> groups(static_cast<std::size_t>(metadata->num_row_groups()));
    for (std::size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
    auto rows = file_->GetRecordBatchReader(groups, chosen);
    check(rows.status());
    rows_ = std::move(*rows);
  }

  // The leaves below the columns wanted.
  std::vector<int> choose(const parquet::SchemaDescriptor& schema, const std::vector<std::string>& columns) const {
    std::vector<int> chosen;
    std::string names, last;
    for (int i = 0; i < schema.num_columns(); ++i) {
      const std::string& root = schema.GetColumnRoot(i)->name();
      if (columns.empty() || std::find(columns.begin(), columns.end(), root) != columns.end()) chosen.push_back(i);
      if (root != last) names += (names.empty() ? "" : ", ") + printable_line(root);
      last = root;
    }
    if (!chosen.empty()) return chosen;
    std::string wanted;
    for (const std::string& column : columns) wanted += (wanted.empty() ? "" : ", ") + column;
    throw DataError(source_.path() + ": none of the columns " + wanted + "; the columns are: " + names);
  }

  ParquetFile source_;  // before everything that allocates from its pool
  std::unique_ptr<parquet::arrow::FileReader> file_;
  std::unique_ptr<arrow::RecordBatchReader> rows_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  std::int64_t at_ = 0, total_rows_ = 0;
};

}  // namespace

std::unique_ptr<JsonRows> open_parquet_rows(const std::filesystem::path& path, const std::vector<std::string>& columns) {
  return std::make_unique<ParquetRows>(path, columns);
}

}  // namespace nanochat
