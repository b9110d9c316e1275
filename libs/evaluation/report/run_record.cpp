#include "evaluation/report/run_record.h"

#include <algorithm>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/run_folder.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/log.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

std::optional<double> number(const nlohmann::json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_number()) return std::nullopt;
  const double value = found->get<double>();
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

nlohmann::json parse_file(const fs::path& file) {
  return nlohmann::json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
}

// Tokens, FLOPs and seconds until a step: training rows tell tokens and milliseconds, checkpoints the FLOPs of a token.
class Progress {
 public:
  explicit Progress(std::optional<double> flops_per_token) : flops_per_token_(flops_per_token) {}

  void see(const nlohmann::json& row) {
    if (const auto ms = number(row, "step_ms")) {
      seconds_ = seconds_.value_or(0.0) + 1e-3 * *ms;
      // Stages that do not count tokens tell their rate.
      const auto rate = number(row, "tokens_per_second");
      if (rate) counted_ += *rate * 1e-3 * *ms;
    }
    if (const auto seconds = number(row, "training_seconds")) seconds_ = seconds;
    if (const auto tokens = number(row, "tokens")) {
      tokens_ = tokens;
    } else if (counted_ > 0.0 && !has_tokens_) {
      tokens_ = counted_;
    }
    has_tokens_ = has_tokens_ || row.contains("tokens");
  }

  CurvePoint at(double step, double value) const {
    CurvePoint point{step, value, tokens_, std::nullopt, seconds_};
    if (tokens_ && flops_per_token_) point.flops = *tokens_ * *flops_per_token_;
    return point;
  }
  double seconds() const { return seconds_.value_or(0.0); }

 private:
  std::optional<double> flops_per_token_, tokens_, seconds_;
  double counted_ = 0.0;
  bool has_tokens_ = false;
};

void read_environment(const fs::path& folder, RunRecord& run) {
  try {
    const CheckpointSummary summary = describe_checkpoint(folder);
    run.environment["parameters"] = summary.config.parameter_count();
    run.environment["flops_per_token"] = summary.config.flops_per_token();
    run.environment["layers"] = summary.config.n_layer;
    run.environment["width"] = summary.config.n_embd;
    run.environment["vocabulary"] = summary.config.vocab_size;
    run.environment["context"] = summary.config.sequence_len;
    if (!summary.training_state.is_object()) return;
    run.stage = summary.training_state.value("stage", run.stage);
    for (const char* key : {"environment", "versions"}) {  // texts by name
      const auto found = summary.training_state.find(key);
      if (found != summary.training_state.end() && found->is_object()) run.environment.update(*found);
    }
  } catch (const CheckpointError& error) {
    log_debug("{}: {}", folder.string(), error.what());  // a run that has not saved yet
  }
}

void read_metrics(const fs::path& file, RunRecord& run) {
  const std::string text = read_file(file);
  const auto flops = run.environment.contains("flops_per_token")
                         ? std::optional(run.environment["flops_per_token"].get<double>())
                         : std::nullopt;
  Progress progress(flops);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const nlohmann::json row = nlohmann::json::parse(std::string_view(text).substr(begin, end - begin), nullptr, false);
    begin = end + 1;
    const auto step = row.is_object() ? number(row, "step") : std::nullopt;
    if (!step) continue;
    progress.see(row);
    run.steps = std::max(run.steps, static_cast<std::int64_t>(*step));
    for (const auto& [key, value] : row.items()) {
      const auto figure = number(row, key.c_str());
      if (!figure || key == "step") continue;
      // Against a peak that was measured in a busy moment, earlier versions wrote more than all of it.
      run.curves[key].push_back(progress.at(*step, key == "mfu" ? std::min(*figure, 1.0) : *figure));
    }
    if (row.contains("samples") && row["samples"].is_string()) {
      run.samples.clear();
      std::string samples = row["samples"];
      for (std::size_t from = 0; from < samples.size();) {
        const std::size_t to = std::min(samples.find('\n', from), samples.size());
        if (to > from) run.samples.push_back({static_cast<std::int64_t>(*step), samples.substr(from, to - from)});
        from = to + 1;
      }
    }
  }
  run.training_seconds = progress.seconds();
}

}  // namespace

std::optional<double> RunRecord::last(const std::string& key) const {
  const auto found = curves.find(key);
  return found == curves.end() || found->second.empty() ? std::nullopt : std::optional(found->second.back().value);
}

std::optional<double> RunRecord::score(const std::string& task) const {
  for (auto newest = evaluations.rbegin(); newest != evaluations.rend(); ++newest) {
    const EvaluationResult& evaluation = newest->second;
    if (task == "CORE" && evaluation.core()) return evaluation.core();
    if (task == "ChatCORE" && evaluation.chat_core()) return evaluation.chat_core();
    for (const TaskResult& result : evaluation.results) {
      if (result.ok() && result.suite != "core" && result.task == task) return result.value;
    }
  }
  return std::nullopt;
}

RunRecord read_run(const fs::path& given) {
  const fs::path folder = locate_run(given);
  if (!fs::exists(folder)) {
    throw DataError(fmt::format("{}: no such run, a folder with metrics.jsonl; there is no {}", given.string(),
                                places_of_run(given)));
  }
  const fs::path metrics = folder / "metrics.jsonl";
  if (!fs::is_regular_file(metrics)) {
    throw DataError(fmt::format("{}: no metrics.jsonl; expected a run folder, as training leaves it", folder.string()));
  }
  RunRecord run;
  run.name = fs::canonical(folder).filename().string();
  run.stage = "pretrain";
  if (fs::is_regular_file(folder / "config.json")) {
    const nlohmann::json config = parse_file(folder / "config.json");
    if (config.is_object()) run.config = config;
  }
  read_environment(folder, run);
  read_metrics(metrics, run);
  if (fs::is_directory(folder / "eval")) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder / "eval")) {
      const fs::path file = entry.path() / "eval.json";
      if (fs::is_regular_file(file)) run.evaluations.emplace(entry.path().filename().string(), read_evaluation(file));
    }
  }
  return run;
}

}  // namespace nanochat
