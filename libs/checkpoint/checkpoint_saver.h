#pragma once
// Saves checkpoints during training. save() copies the tensors in memory and returns; a thread of lower
// priority writes them. One save at a time: the next waits for the one before. A failed save does not
// affect earlier checkpoints; its error is thrown once, by the next call of check(), wait() or save().
//
// For use by one thread, not from within the tasks.

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

// Durations of one save in seconds.
struct SaveTimes {
  double waited = 0.0;   // waiting for the previous save
  double copied = 0.0;   // copying the tensors in memory
  double written = 0.0;  // writing, hashing and flushing the whole checkpoint
  double stalled = 0.0;  // time that training waited: waited + copied, or all of it when not in the background
};

class CheckpointSaver {
 public:
  // background false: save() returns when the checkpoint is complete, and nothing is copied.
  explicit CheckpointSaver(bool background);
  ~CheckpointSaver();  // waits; logs an error that was not thrown yet
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // As save_checkpoint(), then calls `afterwards` on the writing thread. Config and tokenizer must outlive the save.
  void save(const std::filesystem::path& folder, CheckpointContents contents, std::function<void(const SaveTimes&)> afterwards);
  // Runs after the earlier saves; dropped if one of them fails.
  void then(std::function<void()> task);
  void check();  // throws an earlier error, without waiting
  void wait();   // waits until all is done; throws an earlier error
  // The last checkpoint that was saved completely; empty if there is none.
  std::filesystem::path last_saved() const;

 private:
  void run(const std::stop_token& stop);
  void write(const std::filesystem::path& folder, const CheckpointContents& contents, SaveTimes times,
             const std::function<void(const SaveTimes&)>& afterwards);

  NamedTensors weights_, optimizer_;  // the copies; kept for reuse
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;  // the first is being done
  std::exception_ptr error_;
  std::filesystem::path last_saved_;
  std::jthread thread_;  // last, because it must end before the members that it uses
};

}  // namespace nanochat
