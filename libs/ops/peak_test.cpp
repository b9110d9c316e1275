#include "ops/peak.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

namespace nanochat::ops {
namespace {

// Wide enough for a throttled single core and for a large server; wrong units would fall outside.
constexpr double kSlowest = 1e8;
constexpr double kFastest = 1e15;

TEST(MeasuredMatmulFlops, LiesInThePlausibleRange) {
  const double rate = measured_matmul_flops(at::kFloat, 0.05);
  EXPECT_GT(rate, kSlowest);
  EXPECT_LT(rate, kFastest);
}

TEST(MeasuredMatmulFlops, MeasuresBfloat16) {
  const double rate = measured_matmul_flops(at::kBFloat16, 0.05);
  EXPECT_GT(rate, kSlowest);
  EXPECT_LT(rate, kFastest);
}

TEST(MeasuredMatmulFlops, RefusesOtherDtypes) { EXPECT_THROW(measured_matmul_flops(at::kLong, 0.01), c10::Error); }

}  // namespace
}  // namespace nanochat::ops
