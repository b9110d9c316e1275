#pragma once
// Training on conversations, for midtraining and SFT. They differ in how
// conversations become rows, in the schedule, and in the validation score.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/batches/conversation_loader.h"
#include "training/finetune/conversation_data.h"
#include "training/finetune/finetune_options.h"

namespace nanochat {

struct ConversationPlan {
  std::string stage;                    // "midtrain" or "sft"
  ConversationPacking packing = ConversationPacking::kBestFit;
  std::int64_t total_batch_size = 0;    // tokens of a step; 0: see examples_per_step
  std::int64_t examples_per_step = 0;   // conversations in a step, on average (kPadded: exactly)
  double warmup_ratio = 0.0;            // fraction of the steps in which learning rates rise
  double warmdown_ratio = 0.2;          // fraction of the steps in which learning rates fall
  double final_lr_frac = 0.0;           // to this fraction
  bool muon_warmup = true;              // momentum rises from 0.85 to 0.95 in 300 steps, otherwise it is 0.95
  bool load_optimizer = false;          // begin with the state of the base model's optimizer, where there is one
  std::int64_t eval_tokens = 0;
  // The score is bits per byte over a stream of all tokens, otherwise the loss of the supervised tokens.
  bool judge_by_bpb = true;
  std::string recipe = {};              // of sft
  std::function<void(OptionList&)> declare;
  std::vector<ScheduledScore> scores = {};
  Communicator* communicator = &alone();
};

// Rows of a step, as grad_accum_steps equal micro-batches of device_batch_size rows.
struct StepShape {
  std::int64_t grad_accum_steps = 1, device_batch_size = 1;
  std::int64_t rows_of_step() const { return grad_accum_steps * device_batch_size; }
};
// At least rows_wanted rows, in micro-batches of at most largest_device_batch_size, a number of them that the processes can
// share evenly.
StepShape step_shape(std::int64_t rows_wanted, std::int64_t largest_device_batch_size, std::int64_t processes = 1);

// Throws as run_stage, open_base_model and load_conversation_data.
TrainingResult train_on_conversations(const FinetuneConfig& config, const ConversationDataOptions& data,
                                      const ConversationPlan& plan, const Runtime& runtime, ProgressReporter& progress);

}  // namespace nanochat
