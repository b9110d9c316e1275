#pragma once
// Supervised fine-tuning: the model learns only what the assistant writes. Whole conversations are packed into rows
// of the model's context, with attention inside each conversation. The loss is the mean over the supervised tokens of
// a step. The learning rate falls linearly to zero. Source: scripts/chat_sft.py of the reference, which pads instead.

#include "training/finetune/conversation_training.h"

namespace nanochat {

struct SftConfig : FinetuneConfig {
  ConversationDataOptions data;
  std::string packing = "best-fit";     // best-fit | padding
  std::int64_t examples_per_step = 32;  // conversations in an optimizer step
  std::int64_t total_batch_size = 0;    // tokens in an optimizer step, instead; 0: from examples_per_step
  std::int64_t eval_tokens = 1 << 20;
  SftConfig();
};

void declare_sft_options(OptionList& options, SftConfig& config);

TrainingResult sft(const SftConfig& config, ProgressReporter& progress, const std::vector<ScheduledScore>& scores = {},
                   Communicator& communicator = alone());

}  // namespace nanochat
