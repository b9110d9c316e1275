#pragma once
// The data of a run for a report: curves over steps, tokens, FLOPs and
// time, evaluations, samples, and configuration. Reads only the run folder.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "evaluation/task_result.h"

namespace nanochat {

struct CurvePoint {
  double step = 0.0, value = 0.0;
  std::optional<double> tokens, flops, seconds;  // of training up to this point
};

struct RunSample {
  std::int64_t step = 0;
  std::string text;
};

struct RunRecord {
  std::string name;   // of the folder
  std::string stage;  // "pretrain", "midtrain", "sft", "rl"; "pretrain" if not recorded
  std::map<std::string, std::vector<CurvePoint>> curves;  // by key of metrics.jsonl
  std::vector<RunSample> samples;                            // of the last step that has samples
  std::map<std::string, EvaluationResult> evaluations;    // by folder of eval/, in order of steps
  nlohmann::json config = nlohmann::json::object();       // resolved options
  nlohmann::json environment = nlohmann::json::object();  // device, processor, versions, parameters, FLOPs per token
  double training_seconds = 0.0;
  std::int64_t steps = 0;

  std::optional<double> last(const std::string& key) const;
  // The newest evaluation's figure of a task (CORE, ChatCORE: the mean of a suite); nullopt when there is none.
  std::optional<double> score(const std::string& task) const;
};

// Throws DataError if the folder has no metrics.jsonl. Lines that
// are not objects are skipped, because a run may be writing them.
RunRecord read_run(const std::filesystem::path& run);

}  // namespace nanochat
