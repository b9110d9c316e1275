#include "evaluation/example_store.h"

#include <algorithm>
#include <vector>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "checkpoint/append_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

fs::path file_of(const fs::path& folder, int rank, int world) {
  return folder / (world == 1 ? "examples.jsonl" : fmt::format("examples.rank-{}-of-{}.jsonl", rank, world));
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == "examples.jsonl" || (name.starts_with("examples.rank-") && name.ends_with(".jsonl"))) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

void require_same(const nlohmann::json& saved, const nlohmann::json& settings, const fs::path& file) {
  std::vector<std::string> differences;
  for (const auto& [key, value] : settings.items()) {
    const nlohmann::json before = saved.value(key, nlohmann::json());
    if (before != value) differences.push_back(fmt::format("{} was {} and is {}", key, before.dump(), value.dump()));
  }
  if (differences.empty()) return;
  throw ConfigError(fmt::format("{}: the evaluation to go on with was another: {}; leave --resume out to begin anew",
                                file.string(), fmt::join(differences, ", ")));
}

}  // namespace

ExampleStore::ExampleStore() = default;
ExampleStore::~ExampleStore() = default;
ExampleStore& ExampleStore::operator=(ExampleStore&&) noexcept = default;

ExampleStore::ExampleStore(const fs::path& folder, nlohmann::json settings, bool resume, int rank, int world) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw IoError(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
  const fs::path own = file_of(folder, rank, world);
  std::string kept;
  if (resume) {
    for (const fs::path& file : files_in(folder)) {
      const std::string lines = read(file, settings);
      if (file == own) kept = lines;
    }
  } else if (world == 1) {
    for (const fs::path& file : files_in(folder)) fs::remove(file);
  }
  if (kept.empty()) kept = nlohmann::json{{"format_version", 1}, {"settings", settings}}.dump() + "\n";
  write_file_atomically(own, kept);
  file_ = std::make_unique<AppendFile>(own, /*exclusive=*/false);
}

std::string ExampleStore::read(const fs::path& file, const nlohmann::json& settings) {
  const std::string text = read_file(file, std::size_t{1} << 34);
  const std::string whole = text.substr(0, text.rfind('\n') + 1);  // npos + 1 is 0
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < whole.size();) {
    const std::size_t end = whole.find('\n', begin);
    const std::string_view line = std::string_view(whole).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    nlohmann::json row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool header = number == 1;
    const bool good = row.is_object() && (header ? row.contains("settings")
                                                 : row.contains("task") && row["task"].is_string() && row.contains("example") &&
                                                       row["example"].is_number_integer() && row.contains("correct"));
    if (!good) {
      throw DataError(fmt::format("{}:{}: found {}, expected {}", file.string(), number, line.substr(0, 60),
                                  header ? "the settings of an evaluation" : "an example with its task and verdict"));
    }
    if (header) {
      require_same(row["settings"], settings, file);
      continue;
    }
    row.erase("sample");
    nlohmann::json& kept = examples_[row["task"].get<std::string>()][row["example"].get<std::int64_t>()];
    kept = std::move(row);
  }
  return whole;
}

const std::map<std::int64_t, nlohmann::json>& ExampleStore::of(const std::string& task) const {
  static const std::map<std::int64_t, nlohmann::json> none;
  const auto found = examples_.find(task);
  return found == examples_.end() ? none : found->second;
}

void ExampleStore::add(const std::string& task, std::int64_t index, nlohmann::json example) {
  example["task"] = task;
  example["example"] = index;
  if (file_) {
    file_->append(example.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  example.erase("sample");
  examples_[task][index] = std::move(example);
}

}  // namespace nanochat
