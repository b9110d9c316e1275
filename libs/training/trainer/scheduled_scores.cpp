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
  options.add("core_every", config.every, "steps between scores of CORE, each after a checkpoint; 0: never, -1: at the end only").at_least(-1);
  options.add("core_bundle", config.data, "folder of the evaluation bundle of CORE");
  options.add("task_file", config.task_files, "NAME=PATH: another data file for a task of CORE; may be repeated");
  options.add("max_per_task", config.max_per_task, "examples of each task of CORE; -1: all").at_least(-1);
}

void declare_task_scores(OptionList& options, ScoreOptions& config) {
  options.add("task_every", config.every, "steps between scores of chat tasks, each after a checkpoint; 0: never, -1: at the end only").at_least(-1);
  options.add("benchmarks", config.benchmarks, "chat tasks to score, as `eval` names them; chat: the six of ChatCORE").comma_separated();
  options.add("benchmark_dir", config.data, "folder with the sets of the tasks, as `data download` leaves them");
  options.add("task_file", config.task_files, "NAME=PATH: the files of a task; may be repeated");
  options.add("max_per_task", config.max_per_task, "examples of each task; -1: all").at_least(-1);
  options.add("max_tokens", config.max_tokens, "longest answer to a task").at_least(1);
}

}  // namespace nanochat
