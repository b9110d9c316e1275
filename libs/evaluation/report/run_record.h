#pragma once
// What a run has left on disk, as a report needs it: its curves over steps, tokens, FLOPs and time, its evaluations,
// what it wrote, and how it was made. Nothing but the run folder is read.

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
  std::optional<double> tokens, flops, seconds;  // of training until then
};

struct RunSample {
  std::int64_t step = 0;
  std::string text;
};

struct RunRecord {
  std::string name;   // of the folder
  std::string stage;  // "pretrain", "midtrain", "sft", "rl"; "pretrain" where nothing says it
  std::map<std::string, std::vector<CurvePoint>> curves;  // by key of metrics.jsonl
  std::vector<RunSample> samples;                            // of the last step that has some
  std::map<std::string, EvaluationResult> evaluations;    // by folder of eval/, in order of steps
  nlohmann::json config = nlohmann::json::object();       // resolved options
  nlohmann::json environment = nlohmann::json::object();  // device, processor, versions, parameters, FLOPs a token
  double training_seconds = 0.0;
  std::int64_t steps = 0;

  std::optional<double> last(const std::string& key) const;
  // The newest evaluation's figure of a task (CORE, ChatCORE: the mean of a suite); nullopt when there is none.
  std::optional<double> score(const std::string& task) const;
};

// Throws DataError when the folder has no metrics.jsonl; lines of it that are no objects are passed over, as a run may be
// writing them.
RunRecord read_run(const std::filesystem::path& run);

}  // namespace nanochat
