#pragma once
// The CORE metric: accuracy on each task of a bundle, centred by the accuracy of guessing, and the mean over tasks.

#include <cstdint>
#include <vector>

#include "evaluation/core_bundle.h"
#include "evaluation/example_store.h"
#include "evaluation/prompt_scoring.h"
#include "evaluation/task_result.h"

namespace nanochat {

class Gpt;
class ProgressReporter;
class Tokenizer;

struct CoreOptions {
  ScoringOptions scoring;
  std::int64_t max_per_task = -1;  // number of rows of each task after the shuffle; <= 0: all
  // Longer prompts are cut on the left. 0: at ten times the model's context, as far as the reference's tables reach.
  std::int64_t max_prompt_tokens = 0;
  int rank = 0, world = 1;         // this process scores rows rank, rank + world, …
  bool save_samples = false;       // write prompts and spans of every example to the store's file
};

// Scores one task with its rows. Rows in `store` are not scored again; new ones are added to it under
// "core/LABEL" as {"correct", "losses" (of each option) or nothing, "sample"}. On an interrupt,
// finished rows are counted, with a note. Throws DataError for rows that cannot be scored.
TaskResult evaluate_core_task(Gpt& model, const Tokenizer& tokenizer, const CoreTask& task,
                              const std::vector<CoreRow>& shuffled_rows, const CoreOptions& options, ExampleStore& store,
                              ProgressReporter& progress);

// Scores every task in turn. A problem of one task (DataError) becomes its result's `error`, and the next one runs.
std::vector<TaskResult> evaluate_core(Gpt& model, const Tokenizer& tokenizer, const std::vector<CoreTask>& tasks,
                                      const CoreOptions& options, ExampleStore& store, ProgressReporter& progress);

}  // namespace nanochat
