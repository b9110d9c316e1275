#pragma once
// How well a chat model answers the examples of a task (tasks/): the letters of a multiple choice read off the
// logits, everything else written, with the calculator, and compared. What counts as right is the task's to say
// (tasks/answers.h); programs run in a sandbox. Source: the reference's scripts/chat_eval.py.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "evaluation/example_store.h"
#include "evaluation/prompt_scoring.h"
#include "evaluation/task_result.h"
#include "tasks/task.h"

namespace nanochat {

class Gpt;
class ProgressReporter;
class Sandbox;
class Tokenizer;

struct ChatOptions {
  ScoringOptions scoring;          // for categorical tasks
  std::int64_t max_examples = -1;  // the first N of a task; <= 0: all
  std::int64_t num_samples = 1;    // answers to each example; correct if any is (pass@k)
  std::int64_t max_tokens = 512;   // maximum per answer; limited to the context
  double temperature = 0.0;
  std::int64_t top_k = 50;
  std::uint64_t seed = 42;
  std::int64_t max_running = 64;        // answers generated at a time
  const Sandbox* sandbox = nullptr;     // for programs; without one they are an error
  int rank = 0, world = 1;              // this process scores examples rank, rank + world, …
  bool save_samples = false;            // write prompts, completions or logits to the store's file
};

// Examples in `store` under "chat/NAME" are not scored again; new ones are added as {"correct", "group",
// "sample"}. On an interrupt, the finished examples are counted, with a note. Throws DataError if a letter
// is not a single token or the task cannot be scored, and ConfigError for a program without a sandbox.
TaskResult evaluate_chat_task(Gpt& model, const Tokenizer& tokenizer, const Task& task, const ChatOptions& options,
                              ExampleStore& store, ProgressReporter& progress);

// The same without a store or progress, for use during training. `.counts` and `.value` have the accuracy.
TaskResult task_accuracy(Gpt& model, const Tokenizer& tokenizer, const Task& task, const ChatOptions& options = {});

// The Python program from an answer to an example of rule kProgram: the imports at the head
// of the prompt, the answer's first code block (or all of it), the test, and a call of it.
std::string program_of(const TaskExample& example, std::string_view answer);

}  // namespace nanochat
