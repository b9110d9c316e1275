#include "serving/internal/running_answers.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include <spdlog/fmt/fmt.h>

namespace nanochat {

RunningAnswers::RunningAnswers(double timeout) : timeout_(timeout) {
  if (timeout_ > 0) thread_ = std::thread([this] { watch(); });
}

RunningAnswers::~RunningAnswers() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void RunningAnswers::add(const std::shared_ptr<RunningAnswer>& answer, Clock::time_point begin) {
  std::optional<ApiError> end;
  {
    const std::lock_guard lock(mutex_);
    if (entries_.size() >= next_sweep_) {
      entries_.remove_if([](const Entry& entry) { return entry.answer.expired(); });
      next_sweep_ = std::max<std::size_t>(64, 2 * entries_.size());
    }
    const auto time = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_));
    // From the end, because few begin before others that are here: those that waited for their model.
    auto place = entries_.end();
    while (place != entries_.begin() && std::prev(place)->deadline > begin + time) --place;
    entries_.insert(place, {answer, begin + time});
    end = end_;
  }
  if (end) {
    answer->abort(*end);
  } else {
    changed_.notify_one();
  }
}

void RunningAnswers::end_all(const ApiError& error) {
  std::list<Entry> entries;
  {
    const std::lock_guard lock(mutex_);
    end_ = error;
    entries.swap(entries_);
  }
  for (const Entry& entry : entries) {
    if (const auto answer = entry.answer.lock()) answer->abort(error);
  }
}

void RunningAnswers::watch() {
  // A client that gets 504 would ask again, and the answer would take as long: X-Should-Retry is known to the packages of OpenAI
  // and Anthropic.
  const ApiError late = ApiError(504, "server_error",
                                 fmt::format("the answer took longer than {} s, the limit of this server", timeout_), {},
                                 "request_timeout")
                            .with_header("X-Should-Retry", "false");
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (entries_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const auto front = entries_.front();
    if (!front.answer.expired() && Clock::now() < front.deadline) {
      changed_.wait_until(lock, front.deadline);
      continue;
    }
    entries_.pop_front();
    lock.unlock();
    if (const auto answer = front.answer.lock()) answer->abort(late);
    lock.lock();
  }
}

}  // namespace nanochat
