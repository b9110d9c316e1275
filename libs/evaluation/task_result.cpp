#include "evaluation/task_result.h"

#include <algorithm>
#include <cmath>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

nlohmann::json optional_number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? nlohmann::json(*value) : nlohmann::json(nullptr);
}

nlohmann::json to_json(const TaskResult& result) {
  nlohmann::json json{
      {"benchmark", result.suite}, {"task", result.task}, {"metric", result.metric}, {"seconds", result.seconds}};
  if (!result.notes.empty()) json["notes"] = result.notes;
  if (!result.ok()) {
    json["error"] = result.error;
    return json;
  }
  json["value"] = optional_number(result.value);
  json["standard_error"] = optional_number(result.standard_error);
  if (result.counts.total > 0) {
    json["correct"] = result.counts.correct;
    json["total"] = result.counts.total;
  }
  if (result.baseline) {
    json["random_baseline"] = *result.baseline;
    json["centered"] = optional_number(result.centered());
  }
  for (const auto& [name, counts] : result.groups) {
    json["groups"][name] = {{"correct", counts.correct}, {"total", counts.total}, {"accuracy", counts.accuracy()}};
  }
  return json;
}

TaskResult result_from_json(const nlohmann::json& json) {
  TaskResult result;
  result.suite = json.at("benchmark");
  result.task = json.at("task");
  result.metric = json.at("metric");
  result.seconds = json.value("seconds", 0.0);
  result.notes = json.value("notes", std::vector<std::string>{});
  result.error = json.value("error", "");
  if (!result.ok()) return result;
  result.value = json.at("value").is_number() ? json.at("value").get<double>() : std::nan("");
  const auto number = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
  };
  result.standard_error = number("standard_error");
  result.baseline = number("random_baseline");
  result.counts = {json.value("correct", std::int64_t{0}), json.value("total", std::int64_t{0})};
  if (json.contains("groups")) {
    for (const auto& [name, counts] : json.at("groups").items()) {
      result.groups[name] = {counts.at("correct").get<std::int64_t>(), counts.at("total").get<std::int64_t>()};
    }
  }
  return result;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

std::string csv_number(const std::optional<double>& value) { return value ? fmt::format("{:.6f}", *value) : ""; }

}  // namespace

std::optional<double> TaskResult::centered() const {
  if (!ok() || !baseline) return std::nullopt;
  return (value - *baseline) / (1.0 - *baseline);
}

void take_accuracy(TaskResult& result, const TaskCounts& counts) {
  result.counts = counts;
  result.value = counts.accuracy();
  result.standard_error = std::nullopt;
  if (counts.total > 0) {
    result.standard_error = std::sqrt(result.value * (1.0 - result.value) / static_cast<double>(counts.total));
  }
}

std::optional<double> mean_centered(std::span<const TaskResult> results) {
  if (results.empty()) return std::nullopt;
  double sum = 0.0;
  for (const TaskResult& result : results) {
    const std::optional<double> centered = result.centered();
    if (!centered) return std::nullopt;
    sum += *centered;
  }
  return sum / static_cast<double>(results.size());
}

std::vector<TaskResult> EvaluationResult::of(const std::string& suite) const {
  std::vector<TaskResult> chosen;
  std::copy_if(results.begin(), results.end(), std::back_inserter(chosen),
               [&](const TaskResult& result) { return result.suite == suite; });
  return chosen;
}

std::optional<double> EvaluationResult::core() const { return mean_centered(of("core")); }

const std::map<std::string, double>& chat_core_baselines() {
  static const std::map<std::string, double> baselines = {{"arc-easy", 0.25}, {"arc-challenge", 0.25}, {"mmlu", 0.25},
                                                          {"gsm8k", 0.0},     {"humaneval", 0.0},      {"spelling-bee", 0.0}};
  return baselines;
}

std::optional<double> EvaluationResult::chat_core() const {
  std::vector<TaskResult> members = of("chat");
  std::erase_if(members, [](const TaskResult& result) { return !chat_core_baselines().contains(result.task); });
  if (members.size() != chat_core_baselines().size()) return std::nullopt;
  return mean_centered(members);
}

nlohmann::json to_json(const EvaluationResult& evaluation) {
  nlohmann::json json{{"format_version", 1},
                      {"model", evaluation.model},
                      {"settings", evaluation.settings},
                      {"results", nlohmann::json::array()}};
  for (const TaskResult& result : evaluation.results) json["results"].push_back(to_json(result));
  if (const auto core = evaluation.core()) json["core"] = *core;
  if (const auto chat = evaluation.chat_core()) json["chat_core"] = *chat;
  return json;
}

EvaluationResult evaluation_from_json(const nlohmann::json& json, const std::string& where) {
  try {
    if (json.at("format_version") != 1) {
      throw DataError(fmt::format("{}: format_version is {}, but this program reads 1", where,
                                  json.at("format_version").dump()));
    }
    EvaluationResult evaluation;
    evaluation.model = json.at("model");
    evaluation.settings = json.at("settings");
    for (const nlohmann::json& result : json.at("results")) evaluation.results.push_back(result_from_json(result));
    return evaluation;
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("{}: not the result of an evaluation: {}", where, error.what()));
  }
}

EvaluationResult read_evaluation(const std::filesystem::path& file) {
  const nlohmann::json json = nlohmann::json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  return evaluation_from_json(json, file.string());
}

std::string to_csv(const EvaluationResult& evaluation) {
  std::string csv = "benchmark,task,metric,value,standard_error,correct,total,random_baseline,centered,notes\n";
  for (const TaskResult& result : evaluation.results) {
    const std::string notes = result.ok() ? fmt::format("{}", fmt::join(result.notes, "; ")) : "error: " + result.error;
    const bool counted = result.ok() && result.counts.total > 0;
    csv += fmt::format("{},{},{},{},{},{},{},{},{},{}\n", csv_field(result.suite), csv_field(result.task),
                       csv_field(result.metric), result.ok() ? fmt::format("{:.6f}", result.value) : "",
                       csv_number(result.standard_error), counted ? std::to_string(result.counts.correct) : "",
                       counted ? std::to_string(result.counts.total) : "", csv_number(result.baseline),
                       csv_number(result.centered()), csv_field(notes));
  }
  if (const auto core = evaluation.core()) csv += fmt::format("core,CORE,mean centered,{:.6f},,,,,,\n", *core);
  if (const auto chat = evaluation.chat_core()) csv += fmt::format("chat,ChatCORE,mean centered,{:.6f},,,,,,\n", *chat);
  return csv;
}

void merge_earlier(EvaluationResult& now, const EvaluationResult& earlier) {
  if (now.model != earlier.model) return;
  for (const TaskResult& old : earlier.results) {
    const bool renewed = std::any_of(now.results.begin(), now.results.end(), [&](const TaskResult& result) {
      return result.suite == old.suite && result.task == old.task;
    });
    if (!renewed) now.results.push_back(old);
  }
}

}  // namespace nanochat
