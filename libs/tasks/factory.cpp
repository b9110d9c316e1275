#include "tasks/factory.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "data/rows/rows.h"
#include "tasks/row_tasks.h"
#include "tasks/spelling.h"
#include "tasks/toy_tasks.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using Maker = std::shared_ptr<const Task> (*)(const TaskSpec& spec);

TaskSplit drawn_split(const TaskSpec& spec) {
  if (spec.split.empty() || spec.split == "train") return TaskSplit::kTrain;
  if (spec.split == "test") return TaskSplit::kTest;
  throw ConfigError(fmt::format("split of {}: found \"{}\", expected train or test", spec.task, spec.split));
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  return text;
}

template <RowTask kKind>
std::shared_ptr<const Task> from_rows(const TaskSpec& spec) {
  // The name tells ARC-Easy from ARC-Challenge.
  const std::string name = spec.task == "arc" && !spec.subset.empty() ? lower(spec.subset) : spec.task;
  return load_row_task(kKind, name, task_files(spec.path, spec.split, spec.subset), spec.skip_bad);
}

// A set on Hugging Face's servers, which the reference shuffles as it opens it.
template <RowTask kKind>
std::shared_ptr<const Task> from_set(const TaskSpec& spec) {
  return shuffled(from_rows<kKind>(spec));
}

template <auto kMake>
std::shared_ptr<const Task> from_words(const TaskSpec& spec) {
  constexpr std::int64_t kDefaultSize = 1000;  // the reference's
  if (spec.path.size() != 1)
    throw ConfigError(fmt::format("path of {}: found {} files, expected one file with one word per line", spec.task,
                                  spec.path.size()));
  return kMake(read_words(spec.path[0]), spec.size > 0 ? spec.size : kDefaultSize, drawn_split(spec));
}

template <auto kMake>
std::shared_ptr<const Task> from_toy(const TaskSpec& spec) {
  return kMake({drawn_split(spec), spec.size, spec.seed});
}

struct Entry {
  const char* name;
  Maker make;
  bool needs_path;
};

constexpr std::array<Entry, 11> kTasks = {{
    {"conversations", from_rows<RowTask::kConversations>, true},
    {"smoltalk", from_set<RowTask::kConversations>, true},
    {"gsm8k", from_set<RowTask::kGsm8k>, true},
    {"mmlu", from_set<RowTask::kMmlu>, true},
    {"arc", from_set<RowTask::kArc>, true},
    {"humaneval", from_set<RowTask::kHumanEval>, true},
    {"spelling", from_words<simple_spelling>, true},
    {"spelling-bee", from_words<spelling_bee>, true},
    {"toy-facts", from_toy<toy_facts>, false},
    {"toy-arithmetic", from_toy<toy_arithmetic>, false},
    {"toy-spelling", from_toy<toy_spelling>, false},
}};

const Entry& entry_of(const std::string& name, const std::string& where) {
  const auto found = std::find_if(kTasks.begin(), kTasks.end(), [&](const Entry& entry) { return entry.name == name; });
  if (found != kTasks.end()) return *found;
  const std::string close = nearest(name, task_names());
  throw ConfigError(fmt::format("{}: unknown task \"{}\"{}; known tasks: {}", where, name,
                                close.empty() ? "" : fmt::format(", did you mean \"{}\"?", close),
                                fmt::join(task_names(), ", ")));
}

// Whether `word` is a word of `text`: nothing alphanumeric beside it.
bool has_word(const std::string& text, const std::string& word) {
  const auto is_part = [&](std::size_t at) {
    return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
  };
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    if ((at == 0 || !is_part(at - 1)) && !is_part(at + word.size())) return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kTasks) names.emplace_back(entry.name);
  return names;
}

OptionList task_options(TaskSpec& spec) {
  OptionList options;
  options.add("task", spec.task, "Name of the task.");
  options.add("path", spec.path, "Files, folders or globs. In a folder, only the files of the split are used.");
  options.add("split", spec.split, "Split to use: train, validation, test or dev.");
  options.add("subset", spec.subset,
              "Use only files of a folder that have this word in their path, such as ARC-Easy or auxiliary_train.");
  options.add("size", spec.size, "Number of examples of a generated task; 0 uses its default.").at_least(0);
  options.add("seed", spec.seed, "Random seed of a toy task.");
  options.add("start", spec.start, "Skip the rows before this one.").at_least(0);
  options.add("stop", spec.stop, "Skip this row and all rows after it; 0 skips none.").at_least(0);
  options.add("skip_bad", spec.skip_bad, "Skip rows that are not valid, and count them.");
  options.add("repeats", spec.repeats, "Number of times that each row occurs in an epoch of a mixture; may be a fraction.")
      .at_least(0);
  options.add("weight", spec.weight, "Share of an epoch of a mixture, instead of repeats.").at_least(0);
  options.add("cap", spec.cap, "Use at most this many rows; 0 uses all.").at_least(0);
  return options;
}

TaskSpec parse_task(const json& entry, const std::string& where) {
  TaskSpec spec;
  json object = entry;
  if (object.is_object() && object.contains("path") && object["path"].is_string()) {
    object["path"] = json::array({object["path"]});
  }
  task_options(spec).apply_json(object, where);
  const Entry& known = entry_of(spec.task, where);
  if (known.needs_path && spec.path.empty()) {
    throw ConfigError(fmt::format("{}: task \"{}\": found no \"path\", expected files or folders", where, spec.task));
  }
  if (!known.needs_path && !spec.path.empty()) {
    throw ConfigError(fmt::format("{}: task \"{}\": found a \"path\", expected none, because this task is generated", where,
                                  spec.task));
  }
  return spec;
}

std::shared_ptr<const Task> make_task(const TaskSpec& spec) {
  return slice(entry_of(spec.task, "task").make(spec), spec.start, spec.stop);
}

std::shared_ptr<const TaskMixture> make_mixture(const json& value, const std::string& where) {
  std::uint64_t seed = kMixtureSeed;
  std::int64_t rows = 0;
  json tasks = value;
  if (value.is_object()) {
    json others = value;
    others.erase("tasks");
    OptionList options;
    options.add("seed", seed, "Random seed of the order of rows.");
    options.add("rows", rows, "Number of rows in an epoch of a mixture with weights; 0 uses the number of rows of all tasks.")
        .at_least(0);
    options.apply_json(others, where);
    tasks = value.contains("tasks") ? value.at("tasks") : json();
  }
  if (!tasks.is_array() || tasks.empty())
    throw ConfigError(fmt::format("{}: found a mixture without \"tasks\", expected a list of tasks", where));
  std::vector<TaskMixtureEntry> entries;
  for (const json& entry : tasks) {
    const TaskSpec spec = parse_task(entry, fmt::format("{}: task {}", where, entries.size() + 1));
    entries.push_back({make_task(spec), spec.repeats, spec.weight, spec.cap});
  }
  return std::make_shared<TaskMixture>(std::move(entries), seed, rows);
}

std::shared_ptr<const TaskMixture> load_mixture(const fs::path& file) {
  constexpr std::size_t kMaxBytes = 1 << 20;
  json value;
  try {
    value = json::parse(read_file(file, kMaxBytes), nullptr, /*allow_exceptions=*/true, /*ignore_comments=*/true);
  } catch (const json::exception& error) {
    throw ConfigError(fmt::format("{}: not valid JSON: {}", file.string(), error.what()));
  }
  return make_mixture(value, file.string());
}

std::vector<fs::path> task_files(const std::vector<std::string>& paths, const std::string& split, const std::string& subset) {
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    const std::vector<fs::path> found = expand_row_paths({path});
    if (!fs::is_directory(path) || (split.empty() && subset.empty())) {
      files.insert(files.end(), found.begin(), found.end());
      continue;
    }
    const std::size_t before = files.size();
    std::string names;
    for (const fs::path& file : found) {
      const std::string below = file.lexically_relative(path).string();
      names += (names.empty() ? "" : ", ") + below;
      if ((split.empty() || has_word(below, split)) && (subset.empty() || has_word(below, subset))) files.push_back(file);
    }
    if (files.size() == before) {
      throw DataError(fmt::format("folder {}: found no file of {}{}{}; it has: {}", path, split.empty() ? "" : "split " + split,
                                  split.empty() || subset.empty() ? "" : " and ", subset.empty() ? "" : "subset " + subset,
                                  names));
    }
  }
  return files;
}

}  // namespace nanochat
