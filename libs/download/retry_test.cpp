#include "download/retry.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace nanochat {
namespace {

TEST(RetryTest, DelaysStayBelowTheDoublingBound) {
  EXPECT_TRUE(rc::check("0 <= delay < min(first * 2^(n-1), most)", [] {
    RetryPolicy policy;
    policy.first_delay_seconds = 0.5;
    policy.max_delay_seconds = 20;
    Rng random(*rc::gen::arbitrary<std::uint64_t>());
    const int failures = *rc::gen::inRange(1, 200);
    const double delay = delay_seconds(policy, failures, std::nullopt, random);
    double bound = 0.5;
    for (int i = 1; i < failures && bound < 20; ++i) bound *= 2;
    RC_ASSERT(delay >= 0.0);
    RC_ASSERT(delay < std::min(bound, 20.0));
  }));
}

TEST(RetryTest, JitterIsFull) {
  RetryPolicy policy;
  policy.first_delay_seconds = 8;
  Rng random(1);
  int low = 0, high = 0;
  for (int i = 0; i < 1000; ++i) {
    const double delay = delay_seconds(policy, 1, std::nullopt, random);
    if (delay < 2) ++low;
    if (delay > 6) ++high;
  }
  EXPECT_NEAR(low, 250, 60);  // a quarter each; four standard deviations are 55
  EXPECT_NEAR(high, 250, 60);
}

TEST(RetryTest, RetryAfterIsFollowedUpToTheBound) {
  RetryPolicy policy;
  policy.first_delay_seconds = 0;
  policy.max_retry_after_seconds = 30;
  Rng random(1);
  EXPECT_EQ(delay_seconds(policy, 1, 7.0, random), 7.0);
  EXPECT_EQ(delay_seconds(policy, 1, 86400.0, random), 30.0);
  EXPECT_EQ(delay_seconds(policy, 1, std::nullopt, random), 0.0);
}

TEST(RetryTest, StatusesWorthAnotherTry) {
  for (const long status : {408, 425, 429, 500, 502, 503, 504, 520}) EXPECT_TRUE(is_worth_retrying(status)) << status;
  for (const long status : {200, 301, 400, 401, 403, 404, 410, 416, 451, 501, 505}) {
    EXPECT_FALSE(is_worth_retrying(status)) << status;
  }
}

}  // namespace
}  // namespace nanochat
