#include "tasks/task_mixture.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/numpy_random.h"
#include "core/random.h"

namespace nanochat {
namespace {

std::int64_t rows_of(const TaskMixtureEntry& entry) {
  return entry.cap > 0 ? std::min(entry.cap, entry.task->size()) : entry.task->size();
}

class Slice final : public Task {
 public:
  Slice(std::shared_ptr<const Task> task, std::int64_t start, std::int64_t stop, std::int64_t step)
      : task_(std::move(task)), start_(start), stop_(stop), step_(step) {}
  const std::string& name() const override { return task_->name(); }
  TaskKind kind() const override { return task_->kind(); }
  std::int64_t size() const override { return (stop_ - start_ + step_ - 1) / step_; }
  TaskExample example(std::int64_t index) const override { return task_->example(start_ + index * step_); }

 private:
  std::shared_ptr<const Task> task_;
  std::int64_t start_, stop_, step_;
};

class Shuffled final : public Task {
 public:
  Shuffled(std::shared_ptr<const Task> task, std::uint64_t seed)
      : task_(std::move(task)), order_(numpy_permutation(static_cast<std::uint64_t>(task_->size()), seed)) {}
  const std::string& name() const override { return task_->name(); }
  TaskKind kind() const override { return task_->kind(); }
  std::int64_t size() const override { return task_->size(); }
  TaskExample example(std::int64_t index) const override { return task_->example(order_.at(static_cast<std::size_t>(index))); }

 private:
  std::shared_ptr<const Task> task_;
  std::vector<std::uint32_t> order_;
};

}  // namespace

TaskMixture::TaskMixture(std::vector<TaskMixtureEntry> entries, std::uint64_t seed, std::int64_t rows)
    : entries_(std::move(entries)), seed_(seed), rows_(rows) {
  std::size_t weights = 0;
  for (const TaskMixtureEntry& entry : entries_) {
    const auto refuse = [&](const char* what, auto found, const char* expected) {
      throw ConfigError(fmt::format("{} of {} is {}, expected {}", what, entry.task->name(), found, expected));
    };
    if (!(entry.repeats >= 0.0) || entry.repeats > 1e6) refuse("repeats", entry.repeats, "from 0 to 1e6");
    if (!(entry.weight >= 0.0) || std::isinf(entry.weight)) refuse("weight", entry.weight, "0 or more");
    if (entry.cap < 0) refuse("cap", entry.cap, "0 or more");
    if (rows_of(entry) > std::numeric_limits<std::uint32_t>::max()) refuse("the number of rows", rows_of(entry), "below 2^32");
    weights += entry.weight > 0.0 ? 1 : 0;
  }
  if (rows < 0) throw ConfigError(fmt::format("rows of a mixture is {}, expected 0 or more", rows));
  if (weights != 0 && weights != entries_.size()) {
    throw ConfigError("a mixture has weights for some of its tasks; expected one for each, or repeats instead");
  }
  if (rows > 0 && weights == 0)
    throw ConfigError("rows of a mixture are given without weights; expected a weight for each task");
  arrange(0);
  if (order_.empty()) throw ConfigError("a mixture without a row; expected tasks, and repeats above 0");
}

std::vector<std::int64_t> TaskMixture::rows_of_entries() const {
  std::vector<std::int64_t> counts(entries_.size());
  double total_weight = 0.0;
  std::int64_t total = rows_, given = 0;
  for (const TaskMixtureEntry& entry : entries_) {
    total_weight += entry.weight;
    if (rows_ == 0) total += rows_of(entry);
  }
  double weight_before = 0.0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const std::int64_t rows = rows_of(entries_[i]);
    if (total_weight > 0.0) {
      // Up to the rounded share of all so far, so that the parts add up to the whole.
      weight_before += entries_[i].weight;
      const auto until = static_cast<std::int64_t>(std::llround(static_cast<double>(total) * weight_before / total_weight));
      counts[i] = rows > 0 ? until - given : 0;
      given = until;
    } else {
      counts[i] = static_cast<std::int64_t>(std::llround(static_cast<double>(rows) * entries_[i].repeats));
    }
  }
  return counts;
}

void TaskMixture::arrange(std::int64_t epoch) {
  order_.clear();
  PythonRandom random(seed_ + static_cast<std::uint64_t>(epoch));
  const std::vector<std::int64_t> counts = rows_of_entries();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const std::int64_t rows = rows_of(entries_[i]);
    const auto entry = static_cast<std::uint32_t>(i);
    std::int64_t left = counts[i];
    for (; left >= rows && rows > 0; left -= rows) {
      for (std::int64_t row = 0; row < rows; ++row) order_.push_back({entry, static_cast<std::uint32_t>(row)});
    }
    if (left == 0 || rows == 0) continue;
    // A part of the rows: others in every epoch, until all have had their turn.
    const auto modulus = static_cast<std::uint64_t>(rows);  // below 2^32, so the product fits
    const auto first = static_cast<std::int64_t>(static_cast<std::uint64_t>(epoch) % modulus *
                                                 static_cast<std::uint64_t>(left) % modulus);
    for (std::int64_t k = 0; k < left; ++k) order_.push_back({entry, static_cast<std::uint32_t>((first + k) % rows)});
  }
  random.shuffle(order_);
}

TaskExample TaskMixture::example(std::int64_t index) const {
  const auto [entry, row] = source(index);
  return entries_[entry].task->example(row);
}

std::pair<std::size_t, std::int64_t> TaskMixture::source(std::int64_t index) const {
  const Item& item = order_.at(static_cast<std::size_t>(index));
  return {item.entry, item.row};
}

std::shared_ptr<const TaskMixture> TaskMixture::epoch(std::int64_t number) const {
  auto other = std::make_shared<TaskMixture>(*this);
  other->arrange(number);
  return other;
}

std::shared_ptr<const Task> slice(std::shared_ptr<const Task> task, std::int64_t start, std::int64_t stop, std::int64_t step) {
  const std::int64_t size = task->size();
  if (start < 0 || step < 1 || stop < 0) {
    throw ConfigError(fmt::format("rows {} to {} by {} of {} cannot be", start, stop, step, task->name()));
  }
  const std::int64_t end = stop == 0 ? size : std::min(stop, size);
  if (start >= end) throw ConfigError(fmt::format("no rows from {} to {} of {}, which has {}", start, end, task->name(), size));
  if (start == 0 && end == size && step == 1) return task;
  return std::make_shared<Slice>(std::move(task), start, end, step);
}

std::shared_ptr<const Task> shuffled(std::shared_ptr<const Task> task, std::uint64_t seed) {
  return std::make_shared<Shuffled>(std::move(task), seed);
}

}  // namespace nanochat
