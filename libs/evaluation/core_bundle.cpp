#include "evaluation/core_bundle.h"

#include <charconv>
#include <system_error>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/errors.h"
#include "core/json_input.h"
#include "core/options.h"
#include "core/random.h"
#include "data/rows/byte_source.h"
#include "evaluation/internal/core_yaml.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kShuffleSeed = 1337;  // of the reference's base_eval.py

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::map<std::string, double> read_baselines(const fs::path& file) {
  const auto rows = read_csv(file);
  const auto column = [&](std::string_view name) {
    for (std::size_t i = 0; !rows.empty() && i < rows.front().size(); ++i) {
      if (rows.front()[i] == name) return i;
    }
    throw DataError(fmt::format("{}:1: no column \"{}\"", file.string(), name));
  };
  const std::size_t task = column("Eval Task"), baseline = column("Random baseline");
  std::map<std::string, double> baselines;
  for (std::size_t r = 1; r < rows.size(); ++r) {
    if (rows[r].size() <= std::max(task, baseline)) continue;
    const auto percent = parse_number<double>(rows[r][baseline]);
    if (percent && *percent >= 0.0 && *percent < 100.0) baselines[rows[r][task]] = 0.01 * *percent;
  }
  return baselines;
}

std::int64_t parse_fewshot(const std::string& text, const std::string& where) {
  // "[10]": the reference takes the first of the list.
  const std::size_t end = text.find_first_of(",]");
  if (text.size() >= 3 && text.front() == '[' && end != std::string::npos) {
    const auto value = parse_number<std::int64_t>(std::string_view(text).substr(1, end - 1));
    if (value && *value >= 0) return *value;
  }
  throw DataError(fmt::format("{}: num_fewshot is \"{}\", expected a list such as [10]", where, text));
}

CoreTaskType parse_type(const std::string& text, const std::string& where) {
  if (text == "multiple_choice") return CoreTaskType::kMultipleChoice;
  if (text == "schema") return CoreTaskType::kSchema;
  if (text == "language_modeling") return CoreTaskType::kLanguageModeling;
  throw DataError(fmt::format("{}: icl_task_type is \"{}\", expected multiple_choice, schema or language_modeling", where,
                              text));
}

fs::path find_data(const fs::path& folder, const std::string& uri) {
  const fs::path file = folder / "eval_data" / uri;
  if (fs::exists(file)) return file;
  const fs::path compressed = file.string() + ".gz";
  return fs::exists(compressed) ? compressed : file;
}

CoreTask make_task(const fs::path& folder, const fs::path& yaml, const YamlEntry& entry) {
  const std::string where = fmt::format("{}:{}", yaml.string(), entry.line);
  const auto value = [&](const char* key) {
    const auto found = entry.values.find(key);
    if (found == entry.values.end()) throw DataError(fmt::format("{}: the task has no \"{}\"", where, key));
    return found->second;
  };
  CoreTask task;
  task.label = value("label");
  task.file = find_data(folder, value("dataset_uri"));
  task.num_fewshot = parse_fewshot(value("num_fewshot"), where);
  task.type = parse_type(value("icl_task_type"), where);
  if (entry.values.contains("continuation_delimiter")) task.continuation_delimiter = value("continuation_delimiter");
  return task;
}

// A row's string under `key`.
std::string text_of(const nlohmann::json& row, const char* key, const std::string& where) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_string()) {
    throw DataError(fmt::format("{}: \"{}\" is {}, expected a string", where, key,
                                found == row.end() ? "missing" : found->type_name()));
  }
  return found->get<std::string>();
}

void take_options(const nlohmann::json& json, const char* key, const std::string& where, CoreRow& row) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array() || found->empty()) {
    throw DataError(fmt::format("{}: \"{}\" is {}, expected a list of strings", where, key,
                                found == json.end() ? "missing"
                                : found->is_array() ? "empty"
                                                    : found->type_name()));
  }
  for (const nlohmann::json& option : *found) {
    if (!option.is_string())
      throw DataError(fmt::format("{}: \"{}\" holds {}, but must hold strings", where, key, option.type_name()));
    row.options.push_back(option.get<std::string>());
  }
  const auto gold = json.find("gold");
  if (gold == json.end()) throw DataError(fmt::format("{}: the row has no \"gold\"", where));
  const std::int64_t count = static_cast<std::int64_t>(row.options.size());
  if (!gold->is_number_integer() || gold->get<std::int64_t>() < 0 || gold->get<std::int64_t>() >= count) {
    throw DataError(fmt::format("{}: \"gold\" is {}, expected an index of the {} options, 0 to {}", where,
                                gold->dump().substr(0, 40), count, count - 1));
  }
  row.gold = gold->get<std::size_t>();
}

CoreRow parse_row(CoreTaskType type, const std::string& line, const std::string& where) {
  const nlohmann::json json = parse_json_input(line, where);
  if (!json.is_object()) throw DataError(fmt::format("{}: found {}, expected a JSON object", where, line.substr(0, 60)));
  CoreRow row;
  switch (type) {
    case CoreTaskType::kMultipleChoice:
      row.context = text_of(json, "query", where);
      take_options(json, "choices", where, row);
      break;
    case CoreTaskType::kSchema:
      row.continuation = text_of(json, "continuation", where);
      take_options(json, "context_options", where, row);
      break;
    case CoreTaskType::kLanguageModeling:
      row.context = text_of(json, "context", where);
      row.continuation = text_of(json, "continuation", where);
      break;
  }
  return row;
}

}  // namespace

std::vector<CoreTask> read_core_bundle(const fs::path& folder, const std::map<std::string, fs::path>& task_files) {
  if (!fs::is_directory(folder)) {
    throw DataError(
        fmt::format("{}: no such folder; expected an evaluation bundle with core.yaml, eval_data/ and "
                    "eval_meta_data.csv",
                    folder.string()));
  }
  const fs::path yaml = folder / "core.yaml";
  std::vector<CoreTask> tasks;
  std::vector<std::string> labels;
  for (const YamlEntry& entry : read_yaml_list(yaml, "icl_tasks")) {
    tasks.push_back(make_task(folder, yaml, entry));
    labels.push_back(tasks.back().label);
  }
  const auto baselines = read_baselines(folder / "eval_meta_data.csv");
  for (CoreTask& task : tasks) {
    if (const auto found = baselines.find(task.label); found != baselines.end()) task.random_baseline = found->second;
    if (const auto found = task_files.find(task.label); found != task_files.end()) {
      task.file = found->second;
      task.replaced = true;
    }
  }
  for (const auto& [label, file] : task_files) {
    if (std::find(labels.begin(), labels.end(), label) != labels.end()) continue;
    const std::string close = nearest(label, labels);
    throw ConfigError(fmt::format("--task-file {}={}: {} has no such task{}", label, file.string(), yaml.string(),
                                  close.empty() ? fmt::format(", only {}", fmt::join(labels, ", "))
                                                : fmt::format(", did you mean \"{}\"?", close)));
  }
  return tasks;
}

std::vector<CoreRow> read_core_rows(const CoreTask& task) {
  if (!fs::exists(task.file) || fs::is_directory(task.file)) {
    throw DataError(fmt::format("task {}: {} is missing; give another file by --task-file {}=PATH", task.label,
                                task.file.string(), task.label));
  }
  constexpr std::size_t kLongestRow = std::size_t{64} << 20;
  LineReader lines(open_bytes(task.file));
  std::vector<CoreRow> rows;
  for (std::string line; lines.next(line, kLongestRow);) {
    const std::string where = fmt::format("task {}: {}:{}", task.label, task.file.string(), lines.line_number());
    if (!lines.ends_line()) throw DataError(fmt::format("{}: the row is longer than {} bytes", where, kLongestRow));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    rows.push_back(parse_row(task.type, line, where));
  }
  const auto count = static_cast<std::int64_t>(rows.size());
  if (count <= task.num_fewshot) {
    throw DataError(fmt::format("task {}: {} has {} rows, but {} examples and the question itself need {}", task.label,
                                task.file.string(), count, task.num_fewshot, task.num_fewshot + 1));
  }
  return rows;
}

void shuffle_core_rows(std::vector<CoreRow>& rows, std::int64_t max_rows) {
  PythonRandom(kShuffleSeed).shuffle(rows);
  if (max_rows > 0 && max_rows < static_cast<std::int64_t>(rows.size())) rows.resize(static_cast<std::size_t>(max_rows));
}

}  // namespace nanochat
