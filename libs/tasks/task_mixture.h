#pragma once
// Several tasks as one, shuffled. An epoch has all rows of each task `repeats` times (2.5: twice, and
// half of them once more, another half in each epoch). With weights, each task has a share of `rows`
// in proportion to its weight, repeated as often as needed. A cap uses only the first rows of a task.
//
// The order is that of random.Random(seed).shuffle in CPython over the rows of the first task, the second, ...: with the
// default seed, epoch 0 is the order of the reference's TaskMixture. Epoch n has the seed + n.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tasks/task.h"

namespace nanochat {

inline constexpr std::uint64_t kMixtureSeed = 42;

struct TaskMixtureEntry {
  std::shared_ptr<const Task> task;
  double repeats = 1.0;   // at least 0
  double weight = 0.0;    // above 0: used instead of repeats; every entry has one, or none has
  std::int64_t cap = 0;   // rows; 0: all
};

// Immutable: thread-safe.
class TaskMixture final : public Task {
 public:
  // `rows` of an epoch are used with weights alone; 0: as many as the tasks have together, caps applied.
  // Throws ConfigError for a repeats, weight or cap out of range, and when an epoch is empty.
  explicit TaskMixture(std::vector<TaskMixtureEntry> entries, std::uint64_t seed = kMixtureSeed, std::int64_t rows = 0);

  const std::string& name() const override { return name_; }
  TaskKind kind() const override { return TaskKind::kConversation; }
  std::int64_t size() const override { return static_cast<std::int64_t>(order_.size()); }
  TaskExample example(std::int64_t index) const override;

  // The same mixture in the order of another epoch; shares the tasks.
  std::shared_ptr<const TaskMixture> epoch(std::int64_t number) const;
  // The entry at an index, and the index within its task.
  std::pair<std::size_t, std::int64_t> source(std::int64_t index) const;
  const std::vector<TaskMixtureEntry>& entries() const { return entries_; }
  std::vector<std::int64_t> rows_of_entries() const;  // in an epoch, for a log

 private:
  struct Item {
    std::uint32_t entry, row;
  };
  void arrange(std::int64_t epoch);

  std::string name_ = "mixture";
  std::vector<TaskMixtureEntry> entries_;
  std::uint64_t seed_;
  std::int64_t rows_;
  std::vector<Item> order_;
};

// Every `step`-th row of a task from `start` up to but excluding `stop` (0: the end). Throws ConfigError if none is left.
std::shared_ptr<const Task> slice(std::shared_ptr<const Task> task, std::int64_t start, std::int64_t stop,
                                  std::int64_t step = 1);
// The rows in the order of Dataset.shuffle(seed) of Hugging Face's datasets (core/numpy_random.h).
// The reference opens its data sets this way, with this seed, before it takes the first rows.
std::shared_ptr<const Task> shuffled(std::shared_ptr<const Task> task, std::uint64_t seed = kMixtureSeed);

}  // namespace nanochat
