#include "training/sft/sft.h"

#include "core/options.h"

namespace nanochat {

SftConfig::SftConfig() {
  init_lr_frac = 0.02;
  eval_interval = 100;
}

void declare_sft_options(OptionList& options, SftConfig& config) {
  declare_conversation_data(options, config.data);
  declare_finetune_options(options, config);
  options
      .add("packing", config.packing,
           "How conversations fill rows. best-fit packs whole conversations into each row, without attention between "
           "them. padding puts one conversation in each row.")
      .one_of({"best-fit", "padding"});
  options.add("examples_per_step", config.examples_per_step, "Number of conversations in one optimizer step, on average.")
      .at_least(1);
  options
      .add("total_batch_size", config.total_batch_size,
           "Number of tokens in one optimizer step, instead of --examples-per-step; 0 disables this.")
      .at_least(0);
  options.add("eval_tokens", config.eval_tokens, "Validate on at most this many tokens.").at_least(1).may_change();
  declare_measuring_options(options, config, "validation loss");
}

TrainingResult sft(const SftConfig& config, ProgressReporter& progress, const std::vector<ScheduledScore>& scores,
                   Communicator& communicator) {
  const ConversationPlan plan{
      .stage = "sft",
      .packing = config.packing == "padding" ? ConversationPacking::kPadded : ConversationPacking::kBestFit,
      .total_batch_size = config.total_batch_size,
      .examples_per_step = config.examples_per_step,
      .warmdown_ratio = 1.0,
      .muon_warmup = false,
      .eval_tokens = config.eval_tokens,
      .judge_by_bpb = false,
      .declare = [copy = config](OptionList& options) mutable { declare_sft_options(options, copy); },
      .scores = scores,
      .communicator = &communicator};
  return train_on_conversations(config, config.data, plan, progress);
}

}  // namespace nanochat
