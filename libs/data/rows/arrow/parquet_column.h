#pragma once
// For arrow/*.cpp only: what the module exports (see arrow_module.h), and names in its messages.

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/rows/arrow_module.h"

namespace nanochat {

std::unique_ptr<TextColumn> open_parquet_column(const std::filesystem::path& path, const std::string& column);
std::unique_ptr<JsonRows> open_parquet_rows(const std::filesystem::path& path, const std::vector<std::string>& columns);
std::unique_ptr<ByteSource> open_zstd_source(std::unique_ptr<ByteSource> source, const std::string& name);

// In one line of UTF-8, whatever a damaged file has for names: Arrow's messages quote them, and may have several lines.
std::string printable_line(std::string_view message);

}  // namespace nanochat
