#include "inference/internal/decode_shapes.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(DecodeShapes, RowsAreTheNextRecordedNumber) {
  const std::vector<std::int64_t> all = all_recorded_rows(kMostRecordedRows);
  EXPECT_EQ(all, (std::vector<std::int64_t>{1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512}));
  std::size_t next = 0;
  for (std::int64_t rows = 1; rows <= kMostRecordedRows; ++rows) {
    if (rows > all[next]) ++next;
    EXPECT_EQ(recorded_rows(rows), all[next]) << rows;
  }
  EXPECT_EQ(all_recorded_rows(20), (std::vector<std::int64_t>{1, 2, 4, 8, 16, 32}));
}

TEST(DecodeShapes, PositionsGrowByFourUpToTheContext) {
  EXPECT_EQ(recorded_positions(1, 2048), 1024);
  EXPECT_EQ(recorded_positions(1024, 2048), 1024);
  EXPECT_EQ(recorded_positions(1025, 2048), 2048);
  EXPECT_EQ(recorded_positions(1025, 32768), 4096);
  EXPECT_EQ(recorded_positions(20000, 32768), 32768);
  EXPECT_EQ(recorded_positions(20, 96), 96);
}

}  // namespace
}  // namespace nanochat
