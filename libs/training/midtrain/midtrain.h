#pragma once
// Midtraining: a base model learns the format of conversations. Conversations are a stream
// of tokens, and all tokens are targets. The learning rate is constant and falls to zero
// over the last fifth of the steps. Source: scripts/mid_train.py of the reference.

#include "training/finetune/conversation_training.h"

namespace nanochat {

struct MidtrainConfig : FinetuneConfig {
  ConversationDataOptions data;
  std::int64_t total_batch_size = 0;  // tokens; 0: the value of the base model's training
  std::int64_t eval_tokens = 20 * 524288;
  MidtrainConfig();
};

void declare_midtrain_options(OptionList& options, MidtrainConfig& config);

TrainingResult midtrain(const MidtrainConfig& config, ProgressReporter& progress,
                        const std::vector<ScheduledScore>& scores = {}, Communicator& communicator = alone());

}  // namespace nanochat
