#pragma once
// A task whose examples are in memory.

#include <string>
#include <utility>
#include <vector>

#include "tasks/task.h"

namespace nanochat {

class ExampleList final : public Task {
 public:
  ExampleList(std::string name, TaskKind kind, std::vector<TaskExample> examples)
      : name_(std::move(name)), kind_(kind), examples_(std::move(examples)) {}
  const std::string& name() const override { return name_; }
  TaskKind kind() const override { return kind_; }
  std::int64_t size() const override { return static_cast<std::int64_t>(examples_.size()); }
  TaskExample example(std::int64_t index) const override { return examples_.at(static_cast<std::size_t>(index)); }

 private:
  std::string name_;
  TaskKind kind_;
  std::vector<TaskExample> examples_;
};

}  // namespace nanochat
