#include "inference/internal/token_rate.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(TokenRate, IsThatOfTheLastTenWholeSeconds) {
  const TokenRate::Clock::time_point begin{seconds(1000)};
  TokenRate rate;
  EXPECT_EQ(rate.per_second(begin), 0.0);
  for (int i = 0; i < 200; ++i) rate.add(5, begin + i * milliseconds(100));  // 50 a second for 20 s
  EXPECT_EQ(rate.per_second(begin + seconds(20)), 50.0);
  EXPECT_EQ(rate.per_second(begin + seconds(25)), 25.0);  // half of the window was silent
  EXPECT_EQ(rate.per_second(begin + seconds(31)), 0.0);
}

TEST(TokenRate, LeavesOutTheSecondThatRuns) {
  const TokenRate::Clock::time_point begin{seconds(1000)};
  TokenRate rate;
  rate.add(30, begin);
  EXPECT_EQ(rate.per_second(begin + milliseconds(999)), 0.0);
  EXPECT_EQ(rate.per_second(begin + milliseconds(1000)), 3.0);
}

}  // namespace
}  // namespace nanochat
