#include "core/elapsed.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nanochat {
namespace {

using namespace std::chrono_literals;

TEST(Elapsed, IsInSecondsAndSigned) {
  const SteadyClock::time_point begin;
  EXPECT_DOUBLE_EQ(seconds_between(begin, begin + 1500ms), 1.5);
  EXPECT_DOUBLE_EQ(seconds_between(begin + 2min, begin), -120.0);
}

TEST(Elapsed, SinceGrowsWithTheClock) {
  const SteadyClock::time_point begin = SteadyClock::now() - 3s;
  const double before = seconds_since(begin);
  std::this_thread::sleep_for(2ms);
  EXPECT_GE(before, 3.0);
  EXPECT_GE(seconds_since(begin), before + 0.002);
}

}  // namespace
}  // namespace nanochat
