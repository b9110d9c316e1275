#include "checkpoint/checkpoint_saver.h"

#include <ATen/ops/empty.h>

#include <sys/resource.h>

#include <utility>

#include "core/elapsed.h"
#include "core/log.h"

namespace nanochat {
namespace {

// Into `copies`, which are made where names or shapes differ from the last time.
void copy_tensors(const NamedTensors& live, NamedTensors& copies) {
  copies.resize(live.size());
  for (std::size_t i = 0; i < live.size(); ++i) {
    const at::Tensor& from = live[i].second;
    auto& [name, to] = copies[i];
    name = live[i].first;
    if (!to.defined() || to.sizes() != from.sizes() || to.scalar_type() != from.scalar_type()) {
      to = at::empty(from.sizes(), from.scalar_type());
    }
    to.copy_(from);
  }
}

// Steps of training come first where there are fewer processors than threads. On Linux this is the calling thread's.
void lower_priority() {
  constexpr int kNicer = 10;
  ::setpriority(PRIO_PROCESS, 0, ::getpriority(PRIO_PROCESS, 0) + kNicer);
}

}  // namespace

CheckpointSaver::CheckpointSaver(bool background) {
  if (background) thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

CheckpointSaver::~CheckpointSaver() {
  try {
    wait();
  } catch (const std::exception& error) {
    log_error("{}", error.what());
  }
}

void CheckpointSaver::save(const std::filesystem::path& folder, CheckpointContents contents,
                           std::function<void(const SaveTimes&)> afterwards) {
  SaveTimes times;
  auto start = SteadyClock::now();
  wait();
  if (!thread_.joinable()) return write(folder, contents, times, afterwards);
  times.waited = seconds_since(start);
  start = SteadyClock::now();
  if (!contents.weights_are_copies) {
    copy_tensors(contents.weights, weights_);
    contents.weights = weights_;
  }
  copy_tensors(contents.optimizer, optimizer_);
  contents.optimizer = optimizer_;
  times.copied = seconds_since(start);
  then([this, folder, contents = std::move(contents), times, afterwards = std::move(afterwards)] {
    write(folder, contents, times, afterwards);
  });
}

void CheckpointSaver::write(const std::filesystem::path& folder, const CheckpointContents& contents, SaveTimes times,
                            const std::function<void(const SaveTimes&)>& afterwards) {
  const auto start = SteadyClock::now();
  save_checkpoint(folder, contents);
  times.written = seconds_since(start);
  times.stalled = times.waited + times.copied + (thread_.joinable() ? 0.0 : times.written);
  {
    const std::lock_guard lock(mutex_);
    last_saved_ = folder;
  }
  afterwards(times);
}

void CheckpointSaver::then(std::function<void()> task) {
  if (!thread_.joinable()) return task();
  const std::lock_guard lock(mutex_);
  if (error_) return;
  tasks_.push_back(std::move(task));
  changed_.notify_all();
}

void CheckpointSaver::check() {
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void CheckpointSaver::wait() {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return tasks_.empty(); });
  }
  check();
}

std::filesystem::path CheckpointSaver::last_saved() const {
  const std::lock_guard lock(mutex_);
  return last_saved_;
}

void CheckpointSaver::run(const std::stop_token& stop) {
  lower_priority();
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [this] { return !tasks_.empty(); })) return;
      task = std::move(tasks_.front());
    }
    std::exception_ptr error;
    try {
      task();
    } catch (...) {
      error = std::current_exception();
    }
    task = nullptr;  // its tensors go before anyone hears that it is done
    const std::lock_guard lock(mutex_);
    tasks_.pop_front();
    if (error) {
      error_ = error;
      tasks_.clear();
    }
    changed_.notify_all();
  }
}

}  // namespace nanochat
