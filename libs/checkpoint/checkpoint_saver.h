#pragma once
// Saves checkpoints while training goes on: save() copies the tensors in memory and returns, a thread of lower priority
// writes them. One save at a time; the next waits for the one before. A save that fails leaves every checkpoint before
// it as it was, and its error comes out of the next call of check(), wait() or save(), once.
//
// For one thread, which is not that of the tasks.

#include <condition_variable>
#include <deque>
#include <exception>
#include <filesystem>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>

#include "checkpoint/checkpoint.h"

namespace nanochat {

// Seconds of one save.
struct SaveTimes {
  double waited = 0.0;   // for the save before
  double copied = 0.0;   // the tensors in memory
  double written = 0.0;  // the whole checkpoint, hashed and flushed
  double stalled = 0.0;  // training: waited + copied, or all of it when not in the background
};

class CheckpointSaver {
 public:
  // background false: save() returns when the checkpoint stands, and nothing is copied.
  explicit CheckpointSaver(bool background);
  ~CheckpointSaver();  // waits; an error that nobody asked for is logged
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // As save_checkpoint(), then `afterwards` on the thread that wrote. Contents' config and tokenizer must outlive the save.
  void save(const std::filesystem::path& folder, CheckpointContents contents,
            std::function<void(const SaveTimes&)> afterwards);
  // After the saves so far; dropped when one of them fails.
  void then(std::function<void()> task);
  void check();  // throws what went wrong, without waiting
  void wait();   // until all is done; throws what went wrong
  // The last checkpoint that was saved and stands; empty when there is none.
  std::filesystem::path last_saved() const;

 private:
  void run(const std::stop_token& stop);
  void write(const std::filesystem::path& folder, const CheckpointContents& contents, SaveTimes times,
             const std::function<void(const SaveTimes&)>& afterwards);

  NamedTensors weights_, optimizer_;  // the copies; kept, so that later saves need not allocate
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;  // the first is being done
  std::exception_ptr error_;
  std::filesystem::path last_saved_;
  std::jthread thread_;  // last: ends before what it uses
};

}  // namespace nanochat
