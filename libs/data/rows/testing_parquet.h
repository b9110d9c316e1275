#pragma once
// For tests of a build with Arrow only: .parquet files made of rows of JSON, whose types Arrow finds out.

#include <filesystem>
#include <string>

#include <arrow/io/file.h>
#include <arrow/io/memory.h>
#include <arrow/json/reader.h>
#include <arrow/table.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>

namespace nanochat::testing {

inline void write_json_as_parquet(const std::filesystem::path& path, const std::string& rows,
                                  std::int64_t rows_per_group = 1000) {
  auto input = std::make_shared<arrow::io::BufferReader>(arrow::Buffer::FromString(rows));
  auto reader = *arrow::json::TableReader::Make(arrow::default_memory_pool(), input, arrow::json::ReadOptions::Defaults(),
                                                arrow::json::ParseOptions::Defaults());
  const std::shared_ptr<arrow::Table> table = *reader->Read();
  const auto output = *arrow::io::FileOutputStream::Open(path.string());
  ASSERT_TRUE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), output, rows_per_group).ok());
  ASSERT_TRUE(output->Close().ok());
}

}  // namespace nanochat::testing
