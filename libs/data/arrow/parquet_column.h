#pragma once
// For arrow/module.cpp only: what it exports. See arrow_module.h.

#include <filesystem>
#include <memory>
#include <string>

#include "data/arrow_module.h"

namespace nanochat {

std::unique_ptr<TextColumn> open_parquet_column(const std::filesystem::path& path, const std::string& column);
std::unique_ptr<ByteSource> open_zstd_source(std::unique_ptr<ByteSource> source, const std::string& name);

}  // namespace nanochat
