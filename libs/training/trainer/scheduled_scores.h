#pragma once
// Scores of a model that take long, computed at intervals during training: CORE, chat tasks.
// The caller of a stage provides them; the training libraries do not depend on evaluation.

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

// Computed every N steps and at the end, after a checkpoint of the step has been saved.
struct ScheduledScore {
  std::int64_t every = 0;  // steps; 0: never; -1: only at the end
  // Values for metrics.jsonl: {"accuracy_gsm8k": 0.12, …}; empty if there are none.
  std::function<nlohmann::json(Gpt&, const Tokenizer&)> ask;

  bool due(std::int64_t step, bool last) const;
};

// Settings from the user, with the names of `nanochat eval`.
struct ScoreOptions {
  std::int64_t every = 0;
  std::filesystem::path data;           // the bundle, or the folder with the data sets
  std::vector<std::string> benchmarks;  // chat tasks
  std::vector<std::string> task_files;  // NAME=PATH
  std::int64_t max_per_task = -1;
  std::int64_t max_tokens = 512;        // maximum number of tokens in a generated answer
};

void declare_core_scores(OptionList& options, ScoreOptions& config);  // --core-every, --core-bundle, …
void declare_task_scores(OptionList& options, ScoreOptions& config);  // --task-every, --benchmarks, --benchmark-dir, …

}  // namespace nanochat
