// In place of arrow_loader.cpp in a build without Arrow.
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "data/rows/arrow_module.h"

namespace nanochat {

const ArrowModule& arrow_module(const std::filesystem::path& file) {
  throw DataError(
      fmt::format("{}: this build reads no .parquet and no .zst; run scripts/setup.sh, which fetches Arrow, and "
                  "build again with -DNANOCHAT_PARQUET=ON",
                  file.string()));
}

}  // namespace nanochat
