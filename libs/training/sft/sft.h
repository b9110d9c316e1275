#pragma once
// Supervised fine-tuning: the model learns only what the assistant writes. Whole conversations are packed into rows
// of the model's context, with attention inside each conversation. The loss is the mean over the supervised tokens of
// a step. The learning rate falls linearly to zero. Source: scripts/chat_sft.py of the reference, which pads instead.
//
// The recipe nanochat-2026-07 starts from a base model without midtraining: see apply_recipe().

#include "training/finetune/conversation_training.h"

namespace nanochat {

struct SftConfig : FinetuneConfig {
  ConversationDataOptions data;
  std::string recipe = "auto";          // nanochat-2025-12 or nanochat-2026-07; auto: as apply_recipe() says
  std::string packing = "best-fit";     // best-fit | best-fit-pad | padding
  std::int64_t examples_per_step = 32;  // conversations in an optimizer step; 0: as many tokens as the base model's steps had
  std::int64_t total_batch_size = 0;  // tokens in an optimizer step, instead; 0: from examples_per_step
  double warmup_ratio = 0.0, warmdown_ratio = 1.0, final_lr_frac = 0.0;
  bool load_optimizer = false;  // begin with the state of the base model's optimizer
  std::int64_t eval_tokens = 1 << 20;
  SftConfig();
  bool is_2026() const { return recipe == "nanochat-2026-07"; }
};

void declare_sft_options(OptionList& options, SftConfig& config);
// The recipe for a base model: nanochat-2026-07 for a model of that architecture that has had no stage but pretraining, and else
// nanochat-2025-12.
std::string sft_recipe(const GptConfig& base, std::string_view last_stage);
// Gives options of declare_sft_options() that nobody set the defaults of the recipe, which "auto" is replaced by. Call it once all
// sources were read. Throws as describe_checkpoint.
void apply_recipe(OptionList& options, SftConfig& config);

TrainingResult sft(const SftConfig& config, ProgressReporter& progress, const std::vector<ScheduledScore>& scores = {},
                   Communicator& communicator = alone());

}  // namespace nanochat
