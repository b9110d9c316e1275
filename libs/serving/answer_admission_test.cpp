#include "serving/internal/answer_admission.h"

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include <gmock/gmock.h>

#include "serving/api_error.h"

namespace nanochat {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// Seconds to wait by the header Retry-After of the refusal; nullopt if the request is admitted.
std::optional<std::string> retry_after(AnswerAdmission& admission, const std::string& key,
                                       AnswerAdmission::Clock::time_point now) {
  try {
    admission.admit(key, now);
    return std::nullopt;
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 429);
    for (const auto& [name, value] : error.response().headers) {
      if (name == "Retry-After") return value;
    }
    return "no header";
  }
}

TEST(AnswerAdmission, WithoutLimitsAdmitsAll) {
  AnswerAdmission admission({});
  std::vector<std::unique_ptr<AnswerAdmission::Place>> places;
  for (int i = 0; i < 1000; ++i) {
    places.push_back(admission.admit("key"));
    places.back()->charge(1'000'000);
  }
}

TEST(AnswerAdmission, LimitsWhatRunsAtTheSameTime) {
  AnswerAdmission admission({.max_concurrent = 3, .key_max_concurrent = 2});
  auto first = admission.admit("a");
  const auto second = admission.admit("a");
  EXPECT_THROW(admission.admit("a"), ApiError);
  const auto third = admission.admit("b");
  EXPECT_THROW(admission.admit("b"), ApiError);  // b has one, but the server has three
  first.reset();
  EXPECT_NO_THROW(admission.admit("b"));
}

TEST(AnswerAdmission, ARateRefillsWithTime) {
  AnswerAdmission admission({.key_requests_per_minute = 6});
  const auto now = AnswerAdmission::Clock::now();
  for (int i = 0; i < 6; ++i) EXPECT_EQ(retry_after(admission, "a", now), std::nullopt);
  EXPECT_EQ(retry_after(admission, "a", now), "10");
  EXPECT_EQ(retry_after(admission, "b", now), std::nullopt);  // another key
  EXPECT_EQ(retry_after(admission, "a", now + 4s), "6");
  EXPECT_EQ(retry_after(admission, "a", now + 10s), std::nullopt);
  EXPECT_EQ(retry_after(admission, "a", now + 10s), "10");
  for (int i = 0; i < 6; ++i) EXPECT_EQ(retry_after(admission, "a", now + 1h), std::nullopt);  // no more than one minute's
  EXPECT_EQ(retry_after(admission, "a", now + 1h), "10");
}

TEST(AnswerAdmission, TokensAreChargedAtTheEndAndPaidBack) {
  AnswerAdmission admission({.key_tokens_per_minute = 600});
  const auto now = AnswerAdmission::Clock::now();
  admission.admit("a", now)->charge(1200);
  EXPECT_EQ(retry_after(admission, "a", now), "61");  // 600 beyond the limit, at 10 a second, and one token to begin with
  EXPECT_EQ(retry_after(admission, "a", now + 60s), "1");
  EXPECT_EQ(retry_after(admission, "a", now + 61s), std::nullopt);
}

TEST(AnswerAdmission, TheMessageNamesTheLimitAndNotTheKey) {
  AnswerAdmission admission({.key_max_concurrent = 1});
  const auto place = admission.admit("secret");
  try {
    admission.admit("secret");
    FAIL() << "two at a time";
  } catch (const ApiError& error) {
    EXPECT_THAT(error.message(), HasSubstr("found 1 requests of this API key being answered"));
    EXPECT_EQ(error.message().find("secret"), std::string::npos);
  }
}

TEST(AnswerAdmission, CountsRightFromManyThreads) {
  AnswerAdmission admission({.key_max_concurrent = 4});
  std::atomic<int> running{0}, most{0}, admitted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        try {
          const auto place = admission.admit("a");
          const int now = ++running;
          for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
          }
          ++admitted;
          --running;
        } catch (const ApiError&) {
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 4);
  EXPECT_GT(admitted, 0);
  std::vector<std::unique_ptr<AnswerAdmission::Place>> places;
  for (int i = 0; i < 4; ++i) places.push_back(admission.admit("a"));  // every place came back
}

}  // namespace
}  // namespace nanochat
