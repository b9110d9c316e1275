#pragma once
// The answers in progress, to end them early: each one when its time is over, and all of them when the server shuts down.
// A request that waits for its model is one of them. Thread-safe.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "serving/api_error.h"

namespace nanochat {

// Something that RunningAnswers ends.
class RunningAnswer {
 public:
  virtual ~RunningAnswer() = default;
  // Ends it with an error, unless it is complete. Thread-safe.
  virtual void abort(const ApiError& error) = 0;
};

class RunningAnswers {
 public:
  using Clock = std::chrono::steady_clock;

  // Answers that take longer than `timeout` seconds end with status 504, or with an error event in a stream. 0: no limit, and no
  // thread.
  explicit RunningAnswers(double timeout);
  ~RunningAnswers();
  RunningAnswers(const RunningAnswers&) = delete;
  RunningAnswers& operator=(const RunningAnswers&) = delete;

  // `begin`: when the request arrived. Holds no answer longer than the rest of the server does.
  void add(const std::shared_ptr<RunningAnswer>& answer, Clock::time_point begin);
  // Ends all answers, and those that are added from now on, with this error.
  void end_all(const ApiError& error);

 private:
  struct Entry {
    std::weak_ptr<RunningAnswer> answer;
    Clock::time_point deadline;
  };
  void watch();

  const double timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Entry> entries_;  // in the order of their deadlines
  std::size_t next_sweep_ = 64;  // remove the entries of finished answers when there are this many
  std::optional<ApiError> end_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace nanochat
