#include "training/trainer/scheduled_scores.h"

#include <nlohmann/json.hpp>

#include "core/options.h"

namespace nanochat {

bool ScheduledScore::due(std::int64_t step, bool last) const {
  if (every == 0 || step == 0) return false;
  return last || (every > 0 && step % every == 0);
}

void declare_core_scores(OptionList& options, ScoreOptions& config) {
  config.max_per_task = 500;  // the reference's
  options
      .add("core_every", config.every,
           "Evaluate on CORE (22 tasks of the DCLM paper) every N steps, after saving a checkpoint; 0 never, -1 only at the "
           "end.")
      .at_least(-1);
  options.add("core_bundle", config.data, "Folder with the CORE evaluation bundle, as written by `data download core`.");
  options.add("task_file", config.task_files, "NAME=PATH: use another data file for the CORE task NAME. May be repeated.");
  options.add("max_per_task", config.max_per_task, "Number of examples of each CORE task; -1 uses all.").at_least(-1);
}

void declare_task_scores(OptionList& options, ScoreOptions& config) {
  options
      .add("task_every", config.every,
           "Score chat tasks every N steps, after saving a checkpoint; 0 never, -1 only at the end.")
      .at_least(-1);
  options
      .add("benchmarks", config.benchmarks,
           "Chat tasks to score, by the names that `eval` uses; chat means the six tasks of ChatCORE.")
      .comma_separated();
  options.add("benchmark_dir", config.data, "Folder with the data of the tasks, as written by `data download`.");
  options.add("task_file", config.task_files, "NAME=PATH: use these files for the task NAME. May be repeated.");
  options.add("max_per_task", config.max_per_task, "Number of examples of each task; -1 uses all.").at_least(-1);
  options.add("max_tokens", config.max_tokens, "Maximum number of tokens in an answer.").at_least(1);
}

}  // namespace nanochat
