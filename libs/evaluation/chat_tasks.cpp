#include "evaluation/chat_tasks.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/errors.h"
#include "tasks/factory.h"
#include "tasks/row_tasks.h"
#include "tasks/spelling.h"
#include "tasks/task_mixture.h"
#include "tasks/toy_tasks.h"

namespace nanochat {
namespace {

constexpr std::int64_t kSpellingQuestions = 256;  // of the reference's chat_eval.py

std::shared_ptr<const Task> rows_of(RowTask kind, const std::string& name, const std::filesystem::path& path,
                                    const std::string& subset = "", const std::string& split = "test") {
  return shuffled(load_row_task(kind, name, task_files({path.string()}, split, subset)));
}

}  // namespace

const std::vector<std::string>& chat_task_names() {
  static const std::vector<std::string> names = {"arc-easy",     "arc-challenge", "mmlu",           "gsm8k",       "humaneval",
                                                 "spelling-bee", "toy-facts",     "toy-arithmetic", "toy-spelling"};
  return names;
}

bool is_toy_task(const std::string& name) { return name.starts_with("toy-"); }

std::shared_ptr<const Task> open_chat_task(const std::string& name, const std::filesystem::path& path) {
  const ToyTaskOptions toy{.split = TaskSplit::kTest};
  if (name == "arc-easy") return rows_of(RowTask::kArc, name, path, "ARC-Easy");
  if (name == "arc-challenge") return rows_of(RowTask::kArc, name, path, "ARC-Challenge");
  if (name == "mmlu") return rows_of(RowTask::kMmlu, name, path);
  if (name == "gsm8k") return rows_of(RowTask::kGsm8k, name, path);
  if (name == "humaneval") return rows_of(RowTask::kHumanEval, name, path, "", "");
  if (name == "spelling-bee") return spelling_bee(read_words(path), kSpellingQuestions, TaskSplit::kTest);
  if (name == "toy-facts") return toy_facts(toy);
  if (name == "toy-arithmetic") return toy_arithmetic(toy);
  if (name == "toy-spelling") return toy_spelling(toy);
  throw ConfigError(fmt::format("there is no chat task {}, only {}", name, fmt::join(chat_task_names(), ", ")));
}

}  // namespace nanochat
