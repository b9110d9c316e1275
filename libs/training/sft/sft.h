#pragma once
// Supervised fine-tuning: the model learns what the assistant has to write, and that alone. Whole conversations are packed
// into rows of the model's context, attention stays inside each; the loss is the mean over the supervised tokens of a
// step. The learning rate falls linearly to zero. Source: scripts/chat_sft.py of the reference, which pads instead.

#include "training/finetune/conversation_training.h"

namespace nanochat {

struct SftConfig : FinetuneConfig {
  ConversationDataOptions data;
  std::string packing = "best-fit";     // best-fit | padding
  std::int64_t examples_per_step = 32;  // conversations of an optimizer step
  std::int64_t total_batch_size = 0;    // or tokens; 0: from the examples
  std::int64_t eval_tokens = 1 << 20;
  SftConfig();
};

void declare_sft_options(OptionList& options, SftConfig& config);

TrainingResult sft(const SftConfig& config, ProgressReporter& progress, const std::vector<ScheduledScore>& scores = {},
                        Communicator& communicator = alone());

}  // namespace nanochat
