#include "evaluation_files.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "evaluation/chat_tasks.h"
#include "evaluation/task_result.h"

namespace nanochat::cli {

namespace fs = std::filesystem;

EvaluationFiles::EvaluationFiles(fs::path root, const std::vector<std::string>& task_files, std::string flag)
    : root_(std::move(root)), flag_(std::move(flag)) {
  for (const std::string& item : task_files) {
    const std::size_t equals = item.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == item.size()) {
      throw ConfigError(fmt::format("--task-file: found \"{}\", expected NAME=PATH", item));
    }
    named_[item.substr(0, equals)] = item.substr(equals + 1);
  }
}

const fs::path* EvaluationFiles::named(const std::string& task) const {
  const auto found = named_.find(task);
  return found == named_.end() ? nullptr : &found->second;
}

fs::path EvaluationFiles::root() const {
  if (root_.empty()) throw ConfigError(fmt::format("{} is missing: name the data of the tasks", flag_));
  return root_;
}

fs::path EvaluationFiles::of(const std::string& chat_task) const {
  if (is_toy_task(chat_task)) return {};
  if (const fs::path* file = named(chat_task)) return *file;
  if (chat_task.starts_with("arc-")) return root() / "arc";
  if (chat_task == "spelling-bee") return root() / "words" / "words_alpha.txt";
  return root() / chat_task;
}

fs::path EvaluationFiles::core_bundle() const {
  if (const fs::path* folder = named("core")) return *folder;
  for (const char* name : {"core", "eval_bundle"}) {
    if (fs::exists(root() / name / "core.yaml")) return root() / name;
  }
  return root();
}

std::map<std::string, fs::path> EvaluationFiles::core_tasks() const {
  std::map<std::string, fs::path> files = named_;
  std::erase_if(files, [](const auto& item) {
    const auto& chat = chat_task_names();
    return item.first == "core" || item.first == "bpb" || item.first == "completion" ||
           std::find(chat.begin(), chat.end(), item.first) != chat.end();
  });
  return files;
}

std::vector<std::string> expand_task_names(const std::vector<std::string>& names) {
  std::vector<std::string> expanded;
  for (const std::string& name : names) {
    if (name != "chat") {
      expanded.push_back(name);
      continue;
    }
    for (const std::string& task : chat_task_names()) {
      if (chat_core_baselines().contains(task)) expanded.push_back(task);
    }
  }
  return expanded;
}

}  // namespace nanochat::cli
