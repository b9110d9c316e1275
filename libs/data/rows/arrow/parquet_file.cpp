#include "data/rows/arrow/parquet_file.h"

#include <algorithm>

#include <arrow/io/file.h>
#include <parquet/metadata.h>

#include "data/rows/arrow/parquet_column.h"

namespace nanochat {
namespace {

// A page and a dictionary of up to 2 GiB each (the format's limit) are read; damaged files that claim more are refused.
constexpr std::int64_t kMemoryLimit = (std::int64_t{4} << 30) + (std::int64_t{64} << 20);
constexpr std::int64_t kStreamBuffer = 1 << 20;

}  // namespace

ParquetFile::ParquetFile(const std::filesystem::path& path)
    : path_(path.string()), pool_(arrow::system_memory_pool(), kMemoryLimit) {}

std::unique_ptr<parquet::ParquetFileReader> ParquetFile::open() {
  parquet::ReaderProperties properties(&pool_);
  properties.enable_buffered_stream();  // or else a column of a row group is read whole
  properties.set_buffer_size(kStreamBuffer);
  properties.set_page_checksum_verification(true);
  auto opened = arrow::io::ReadableFile::Open(path_, &pool_);
  if (!opened.ok()) {
    const auto& detail = opened.status().detail();  // the message itself names the path again
    throw DataError(path_ + ": cannot open: " + (detail ? detail->ToString() : opened.status().message()));
  }
  bytes_ = static_cast<std::uint64_t>(opened.ValueOrDie()->GetSize().ValueOr(0));
  auto file = parquet::ParquetFileReader::Open(*opened, properties);
  rows_ = file->metadata()->num_rows();
  return file;
}

std::uint64_t ParquetFile::stored_bytes() const {
  const double share = static_cast<double>(row_) / static_cast<double>(std::max<std::int64_t>(rows_, 1));
  return static_cast<std::uint64_t>(static_cast<double>(bytes_) * std::min(share, 1.0));
}

void ParquetFile::fail(const std::string& what) const {
  throw DataError(path_ + ": cannot be read as parquet: " + printable_line(what));
}

}  // namespace nanochat
