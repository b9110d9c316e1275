// What a build with Arrow and one without have in common.
#include "core/git_lfs.h"
#include "data/rows/arrow_module.h"

namespace nanochat {

std::unique_ptr<TextColumn> open_text_column(const std::filesystem::path& path, const std::string& column) {
  refuse_lfs_pointer(path);
  return arrow_module(path).open_parquet(path, column);
}

std::unique_ptr<JsonRows> open_json_rows(const std::filesystem::path& path, const std::vector<std::string>& columns) {
  refuse_lfs_pointer(path);
  return arrow_module(path).open_parquet_rows(path, columns);
}

}  // namespace nanochat
