#include "serving/internal/running_answers.h"

#include <chrono>
#include <future>
#include <memory>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

class Answer : public RunningAnswer {
 public:
  void abort(const ApiError& error) override { ended_.set_value(error.status()); }
  // The status that it ended with, 0 if it has not ended after a while.
  int status(std::chrono::milliseconds patience) {
    return future_.wait_for(patience) == std::future_status::ready ? future_.get() : 0;
  }

 private:
  std::promise<int> ended_;
  std::future<int> future_ = ended_.get_future();
};

constexpr std::chrono::seconds kLong{5};

TEST(RunningAnswers, EndByTheArrivalOfTheirRequests) {
  RunningAnswers running(3600.0);
  const auto now = RunningAnswers::Clock::now();
  const auto young = std::make_shared<Answer>(), old = std::make_shared<Answer>();
  running.add(young, now);
  running.add(old, now - std::chrono::hours(1));  // it waited for its model
  EXPECT_EQ(old->status(kLong), 504);
  EXPECT_EQ(young->status(std::chrono::milliseconds(1)), 0);
}

TEST(RunningAnswers, EndWithTheServer) {
  RunningAnswers running(0.0);
  const auto before = std::make_shared<Answer>(), after = std::make_shared<Answer>();
  running.add(before, RunningAnswers::Clock::now());
  running.end_all(ApiError::unavailable("the server is shutting down"));
  running.add(after, RunningAnswers::Clock::now());
  EXPECT_EQ(before->status(kLong), 503);
  EXPECT_EQ(after->status(kLong), 503);
}

}  // namespace
}  // namespace nanochat
