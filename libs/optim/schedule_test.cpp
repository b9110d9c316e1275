#include "optim/schedule.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(LearningRateSchedule, HoldsThenFallsToZeroByDefault) {
  const LearningRateSchedule schedule{.num_iterations = 100};
  EXPECT_EQ(schedule.multiplier(0), 1.0);
  EXPECT_EQ(schedule.multiplier(80), 1.0);
  EXPECT_DOUBLE_EQ(schedule.multiplier(81), 19.0 / 20.0);
  EXPECT_DOUBLE_EQ(schedule.multiplier(99), 1.0 / 20.0);
  EXPECT_EQ(schedule.multiplier(100), 0.0);
  EXPECT_EQ(schedule.multiplier(1000), 0.0);
}

TEST(LearningRateSchedule, RisesLinearlyFromTheFirstStep) {
  const LearningRateSchedule schedule{.num_iterations = 100, .warmup_ratio = 0.1};
  EXPECT_DOUBLE_EQ(schedule.multiplier(0), 0.1);
  EXPECT_DOUBLE_EQ(schedule.multiplier(8), 0.9);
  EXPECT_DOUBLE_EQ(schedule.multiplier(9), 1.0);
}

TEST(LearningRateSchedule, FallsToTheGivenShare) {
  const LearningRateSchedule schedule{.num_iterations = 10, .warmdown_ratio = 0.5, .final_lr_frac = 0.2};
  EXPECT_DOUBLE_EQ(schedule.multiplier(5), 1.0);
  EXPECT_DOUBLE_EQ(schedule.multiplier(6), 0.8 * 0.8 + 0.2);
  EXPECT_DOUBLE_EQ(schedule.multiplier(10), 0.2);
}

TEST(LearningRateSchedule, RoundsHalvesToEvenAsPython) {
  // 0.25 * 10 = 2.5 rounds to 2: the fall begins after iteration 8.
  const LearningRateSchedule schedule{.num_iterations = 10, .warmdown_ratio = 0.25};
  EXPECT_EQ(schedule.multiplier(8), 1.0);
  EXPECT_DOUBLE_EQ(schedule.multiplier(9), 0.5);
}

TEST(MuonMomentum, RisesOver300Iterations) {
  EXPECT_DOUBLE_EQ(muon_momentum(0), 0.85);
  EXPECT_DOUBLE_EQ(muon_momentum(1), 0.8503333333333333);  // as in the parity fixture
  EXPECT_DOUBLE_EQ(muon_momentum(150), 0.9);
  EXPECT_DOUBLE_EQ(muon_momentum(300), 0.95);
  EXPECT_DOUBLE_EQ(muon_momentum(10000), 0.95);
}

}  // namespace
}  // namespace nanochat
