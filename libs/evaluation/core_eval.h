#pragma once
// The CORE metric: accuracy in each task of a bundle, centred by what guessing gives, and the mean over tasks.

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
  std::int64_t max_per_task = -1;  // rows of each task after the shuffle; <= 0: all
  // Longer prompts are cut on the left. 0: at ten times the model's context, as far as the reference goes.
  std::int64_t max_prompt_tokens = 0;
  int rank = 0, world = 1;         // this process answers rows rank, rank + world, …
  bool save_samples = false;       // prompts and spans of every example go to the store's file
};

// One task whose rows are read. Rows that `store` holds are not asked again; new ones are added to it under
// "core/LABEL" as {"correct", "losses" (of each option) or nothing, "sample"}. On an interrupt what is done is counted,
// and a note says so. Throws DataError for rows that cannot be asked.
TaskResult evaluate_core_task(Gpt& model, const Tokenizer& tokenizer, const CoreTask& task,
                              const std::vector<CoreRow>& shuffled_rows, const CoreOptions& options,
                              ExampleStore& store, ProgressReporter& progress);

// Every task in turn. What is wrong with one task (DataError) becomes its result's `error`, and the next follows.
std::vector<TaskResult> evaluate_core(Gpt& model, const Tokenizer& tokenizer, const std::vector<CoreTask>& tasks,
                                      const CoreOptions& options, ExampleStore& store, ProgressReporter& progress);

}  // namespace nanochat
