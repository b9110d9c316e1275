#pragma once
// Scores that training asks at intervals: what training/trainer/scheduled_scores.h leaves open, by evaluation/.

#include <vector>

#include "training/trainer/scheduled_scores.h"

namespace nanochat::cli {

// CORE as {"core", "core_TASK" (centred)…}; {} when --core-every is 0. Bundle and rows are read here once, so that what is
// wrong with them is found before training. Throws ConfigError, DataError.
std::vector<ScheduledScore> core_scores(const ScoreOptions& options);

// Chat tasks as {"accuracy_TASK"…, "accuracy" (their mean), "chat_core" (where all six are)}; {} when --task-every is 0.
// Programs run in the sandbox. Throws ConfigError, DataError.
std::vector<ScheduledScore> task_scores(const ScoreOptions& options);

// For the ranks that wait while rank 0 asks either of them: the same schedule.
std::vector<ScheduledScore> others_scores(const ScoreOptions& options);

}  // namespace nanochat::cli
