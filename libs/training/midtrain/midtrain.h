#pragma once
// Midtraining: a base model learns the form of conversations. Conversations follow each other in a stream of tokens, all
// of them targets; the learning rate is constant and falls to zero over the last fifth. Source: scripts/mid_train.py of
// the reference.

#include "training/finetune/conversation_training.h"

namespace nanochat {

struct MidtrainConfig : FinetuneConfig {
  ConversationDataOptions data;
  std::int64_t total_batch_size = 0;  // tokens; 0: that of the base model's training
  std::int64_t eval_tokens = 20 * 524288;
  MidtrainConfig();
};

void declare_midtrain_options(OptionList& options, MidtrainConfig& config);

TrainingResult midtrain(const MidtrainConfig& config, ProgressReporter& progress, const std::vector<ScheduledScore>& scores = {},
                        Communicator& communicator = alone());

}  // namespace nanochat
