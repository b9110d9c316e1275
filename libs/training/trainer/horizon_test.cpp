#include "training/trainer/horizon.h"

#include <gtest/gtest.h>

#include "optim/schedule.h"

namespace nanochat {
namespace {

TEST(Horizon, OfStepsAlone) {
  const Horizon horizon{.steps = 10};
  EXPECT_FALSE(horizon.reached(9, 1e9));
  EXPECT_TRUE(horizon.reached(10, 0.0));
  EXPECT_EQ(horizon.expected_steps(0, 0.0), 10);
  EXPECT_EQ(horizon.expected_steps(5, 1e9), 10);
}

TEST(Horizon, OfTimeFollowsTheSpeed) {
  const Horizon horizon{.steps = 0, .seconds = 100.0};
  EXPECT_EQ(horizon.expected_steps(0, 0.0), 1);
  EXPECT_EQ(horizon.expected_steps(10, 10.0), 100);
  EXPECT_EQ(horizon.expected_steps(30, 60.0), 50) << "it became slower";
  EXPECT_FALSE(horizon.reached(500, 99.9));
  EXPECT_EQ(horizon.expected_steps(500, 99.99), 501) << "one more at least";
  EXPECT_TRUE(horizon.reached(501, 100.1));
  EXPECT_EQ(horizon.expected_steps(501, 100.1), 501);
}

TEST(Horizon, OfTimeTakesTheLeastNumberOfStepsHoweverSlow) {
  const Horizon horizon{.steps = 50, .seconds = 100.0};
  EXPECT_EQ(horizon.expected_steps(10, 50.0), 50);
  EXPECT_FALSE(horizon.reached(20, 100.0));
  EXPECT_FALSE(horizon.reached(49, 1000.0));
  EXPECT_TRUE(horizon.reached(50, 1000.0));
  EXPECT_EQ(horizon.expected_steps(10, 1.0), 1000) << "and more when it is fast";
}

// Steps of one second, of which the second half takes four times as long: learning rates fall to zero all the same.
TEST(Horizon, TheScheduleEndsWithTheTime) {
  const Horizon horizon{.steps = 0, .seconds = 100.0};
  LearningRateSchedule schedule{.warmdown_ratio = 0.4};
  std::int64_t step = 0;
  double spent = 0.0, last = 1.0;
  while (!horizon.reached(step, spent)) {
    schedule.num_iterations = horizon.expected_steps(step, spent);
    const double multiplier = schedule.multiplier(step);
    if (spent > 0.0 && spent <= 59.0) {
      EXPECT_EQ(multiplier, 1.0) << spent;
    }
    if (spent > 62.0) {
      EXPECT_NEAR(multiplier, (100.0 - spent) / 40.0, 0.05) << spent;
    }
    last = multiplier;
    spent += spent < 50.0 ? 1.0 : 4.0;
    ++step;
  }
  EXPECT_EQ(step, 63);
  EXPECT_LT(last, 0.11);
}

}  // namespace
}  // namespace nanochat
