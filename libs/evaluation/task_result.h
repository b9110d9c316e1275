#pragma once
// Results of an evaluation: scores of each task, their formats on disk and on the terminal. Pure data.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace nanochat {

struct TaskCounts {
  std::int64_t correct = 0, total = 0;
  double accuracy() const { return total > 0 ? static_cast<double>(correct) / static_cast<double>(total) : 0.0; }
  bool operator==(const TaskCounts&) const = default;
};

struct TaskResult {
  std::string suite;      // "core", "chat", "bpb", "completion" or "custom"; "benchmark" in files
  std::string task;       // "hellaswag", "gsm8k", "validation"
  std::string metric = "accuracy";  // or "pass@k", "bits per byte"
  double value = 0.0;
  std::optional<double> standard_error;
  TaskCounts counts;                 // empty for a metric other than accuracy
  std::optional<double> baseline;    // accuracy of guessing
  std::map<std::string, TaskCounts> groups;  // by subject or topic
  std::vector<std::string> notes;    // what a reader must know: a replaced file, truncated prompts
  double seconds = 0.0;
  std::string error;                 // if not empty: the reason why there is no score

  bool ok() const { return error.empty(); }
  // (value - baseline) / (1 - baseline): 0 is guessing, 1 is perfect.
  std::optional<double> centered() const;
};

// Sets value and standard error, sqrt(p (1 - p) / n), from the counts.
void take_accuracy(TaskResult& result, const TaskCounts& counts);

// Mean of the centred accuracies; nullopt unless every task has one.
std::optional<double> mean_centered(std::span<const TaskResult> results);

struct EvaluationResult {
  nlohmann::json model = nlohmann::json::object();     // checkpoint, stage, step, …
  nlohmann::json settings = nlohmann::json::object();  // settings that change scores: dtype, truncate, …
  std::vector<TaskResult> results;

  std::vector<TaskResult> of(const std::string& suite) const;
  // CORE and ChatCORE, where all their tasks are there.
  std::optional<double> core() const;
  std::optional<double> chat_core() const;
};

// The tasks of ChatCORE: those of the reference's chat_eval.py with its baselines.
const std::map<std::string, double>& chat_core_baselines();

nlohmann::json to_json(const EvaluationResult& evaluation);
// Throws DataError with `where` for anything but such an object.
EvaluationResult evaluation_from_json(const nlohmann::json& json, const std::string& where);
EvaluationResult read_evaluation(const std::filesystem::path& file);  // eval.json; throws DataError
std::string to_csv(const EvaluationResult& evaluation);

// Copies scores of `earlier` that `now` does not have, if both are for the same checkpoint.
void merge_earlier(EvaluationResult& now, const EvaluationResult& earlier);

}  // namespace nanochat
