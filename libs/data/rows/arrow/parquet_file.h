#pragma once
// For the readers of parquet only: a file opened with a limit on memory, and Arrow's failures as DataError.

#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>
#include <string>

#include <arrow/memory_pool.h>
#include <parquet/file_reader.h>

#include "core/errors.h"

namespace nanochat {

class ParquetFile {
 public:
  explicit ParquetFile(const std::filesystem::path& path);

  const std::string& path() const { return path_; }
  arrow::MemoryPool& pool() { return pool_; }
  // Pages are checked and streamed. Within guarded(). Throws DataError when there is no such file, else what Arrow throws.
  std::unique_ptr<parquet::ParquetFileReader> open();

  // Rows that were handed out, and the share of the file that they stand for, in bytes.
  std::uint64_t row() const { return row_; }
  void advance() { ++row_; }
  std::uint64_t stored_bytes() const;

  [[noreturn]] void fail(const std::string& what) const;

  // Whatever Arrow throws in `function` becomes a DataError, and the reader is not to be used again.
  template <typename Function>
  auto guarded(Function function) const {
    try {
      return function();
    } catch (const DataError&) {
      throw;
    } catch (const std::bad_alloc&) {
      fail("it asks for more memory than there is (row " + std::to_string(row_ + 1) + ")");
    } catch (const std::exception& error) {
      fail(error.what());
    }
  }

 private:
  std::string path_;
  arrow::CappedMemoryPool pool_;
  std::uint64_t bytes_ = 0, row_ = 0;
  std::int64_t rows_ = 0;
};

}  // namespace nanochat
