#pragma once
// Reinforcement learning on tasks whose answers can be checked. The model answers each question several
// times, with the calculator, and answers with a reward above the mean become more likely (policy_batches.h).
// The score is pass@k on held-out questions. Source: scripts/chat_rl.py of the reference.

#include <string>

#include "training/finetune/finetune_options.h"

namespace nanochat {

struct RlConfig : FinetuneConfig {
  std::string mixture;                  // tasks with a reward: a JSON file, or the JSON itself
  std::string validation_mixture;       // held out
  std::int64_t examples_per_step = 16;  // questions in an optimizer step
  std::int64_t num_samples = 16;        // answers to each question
  std::int64_t max_new_tokens = 256;    // maximum number of tokens in an answer
  double temperature = 1.0;
  std::int64_t top_k = 50;
  std::int64_t max_running = 256;       // answers that are generated at a time (--generation-batch)
  std::int64_t eval_examples = 400;     // questions of each validation
  std::int64_t eval_samples = 8;        // answers to each: pass@1 to pass@8
  RlConfig();
};

void declare_rl_options(OptionList& options, RlConfig& config);

// The score is 1 - pass@1. Throws as run_stage and open_base_model; ConfigError when the tasks have no reward.
TrainingResult rl(const RlConfig& config, ProgressReporter& progress, Communicator& communicator = alone());

}  // namespace nanochat
