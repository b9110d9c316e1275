#include "ops/peak.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <vector>

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

TEST(PeakRate, IsMeasuredAgainWhenARateExceedsIt) {
  std::vector<double> measured = {100, 90, 150, 500};
  std::size_t next = 0;
  PeakRate peak([&] { return measured.at(next++); });
  EXPECT_DOUBLE_EQ(peak.utilization(50), 0.5);
  EXPECT_EQ(next, 1U);
  EXPECT_DOUBLE_EQ(peak.utilization(120), 0.8) << "90 is no better, 150 is";
  EXPECT_EQ(next, 3U);
  EXPECT_DOUBLE_EQ(peak.flops(), 150);
  EXPECT_DOUBLE_EQ(peak.utilization(75), 0.5) << "the better peak stays";
}

TEST(PeakRate, IsNeverExceeded) {
  int measurements = 0;
  PeakRate peak([&] { return ++measurements, 100.0; });
  EXPECT_DOUBLE_EQ(peak.utilization(175), 1.0);
  EXPECT_EQ(measurements, PeakRate::kMostMeasurements);
  EXPECT_DOUBLE_EQ(peak.utilization(200), 1.0);
  EXPECT_EQ(measurements, PeakRate::kMostMeasurements) << "a run does not spend its time measuring";
  EXPECT_DOUBLE_EQ(peak.utilization(100), 0.5);
}

TEST(PeakRate, OfNothingIsNoUtilization) {
  PeakRate peak([] { return 0.0; });
  EXPECT_EQ(peak.utilization(0.0), 0.0);
}

TEST(MeasuredMatmulFlops, RefusesOtherDtypes) { EXPECT_THROW(measured_matmul_flops(at::kLong, 0.01), c10::Error); }

}  // namespace
}  // namespace nanochat::ops
