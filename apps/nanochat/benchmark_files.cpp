#include "benchmark_files.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "evaluation/benchmarks.h"
#include "evaluation/task_result.h"

namespace nanochat::cli {

namespace fs = std::filesystem;

BenchmarkFiles::BenchmarkFiles(fs::path root, const std::vector<std::string>& task_files, std::string flag)
    : root_(std::move(root)), flag_(std::move(flag)) {
  for (const std::string& item : task_files) {
    const std::size_t equals = item.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == item.size()) {
      throw ConfigError(fmt::format("--task-file: found \"{}\", expected NAME=PATH", item));
    }
    named_[item.substr(0, equals)] = item.substr(equals + 1);
  }
}

const fs::path* BenchmarkFiles::named(const std::string& benchmark) const {
  const auto found = named_.find(benchmark);
  return found == named_.end() ? nullptr : &found->second;
}

fs::path BenchmarkFiles::root() const {
  if (root_.empty()) throw ConfigError(fmt::format("{} is missing: name the data of the benchmarks", flag_));
  return root_;
}

fs::path BenchmarkFiles::of(const std::string& chat_benchmark) const {
  if (is_toy_benchmark(chat_benchmark)) return {};
  if (const fs::path* file = named(chat_benchmark)) return *file;
  if (chat_benchmark.starts_with("arc-")) return root() / "arc";
  if (chat_benchmark == "spelling-bee") return root() / "words" / "words_alpha.txt";
  return root() / chat_benchmark;
}

fs::path BenchmarkFiles::core_bundle() const {
  if (const fs::path* folder = named("core")) return *folder;
  for (const char* name : {"core", "eval_bundle"}) {
    if (fs::exists(root() / name / "core.yaml")) return root() / name;
  }
  return root();
}

std::map<std::string, fs::path> BenchmarkFiles::core_tasks() const {
  std::map<std::string, fs::path> files = named_;
  std::erase_if(files, [](const auto& item) {
    const auto& chat = chat_benchmarks();
    return item.first == "core" || item.first == "bpb" || item.first == "completion" ||
           std::find(chat.begin(), chat.end(), item.first) != chat.end();
  });
  return files;
}

std::vector<std::string> expand_benchmarks(const std::vector<std::string>& names) {
  std::vector<std::string> expanded;
  for (const std::string& name : names) {
    if (name != "chat") {
      expanded.push_back(name);
      continue;
    }
    for (const std::string& task : chat_benchmarks()) {
      if (chat_core_baselines().contains(task)) expanded.push_back(task);
    }
  }
  return expanded;
}

}  // namespace nanochat::cli
