// The module's one exported symbol.
#include "data/rows/arrow/parquet_column.h"

extern "C" __attribute__((visibility("default"))) const nanochat::ArrowModule* nanochat_arrow_module() {
  static const nanochat::ArrowModule module = {nanochat::kArrowModuleVersion, &nanochat::open_parquet_column,
                                               &nanochat::open_parquet_rows, &nanochat::open_zstd_source};
  return &module;
}
