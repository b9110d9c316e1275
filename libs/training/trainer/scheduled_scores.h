#pragma once
// Scores of a model that take long, asked at intervals while it trains: CORE, tasks. Whoever starts a stage gives them;
// the libraries of training know nothing of evaluation.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

class Gpt;
class OptionList;
class Tokenizer;

// Asked after every so many steps and at the end, when a checkpoint of the step is on disk.
struct ScheduledScore {
  std::int64_t every = 0;  // steps; 0: never; -1: at the end only
  // Figures for metrics.jsonl: {"accuracy_gsm8k": 0.12, …}; none when there is nothing to say.
  std::function<nlohmann::json(Gpt&, const Tokenizer&)> ask;

  bool due(std::int64_t step, bool last) const;
};

// What users say of them, as `nanochat eval` names it.
struct ScoreOptions {
  std::int64_t every = 0;
  std::filesystem::path data;           // the bundle, or the folder with the sets
  std::vector<std::string> benchmarks;  // chat tasks
  std::vector<std::string> task_files;  // NAME=PATH
  std::int64_t max_per_task = -1;
  std::int64_t max_tokens = 512;        // of a written answer
};

void declare_core_scores(OptionList& options, ScoreOptions& config);  // --core-every, --core-bundle, …
void declare_task_scores(OptionList& options, ScoreOptions& config);  // --task-every, --benchmarks, --benchmark-dir, …

}  // namespace nanochat
