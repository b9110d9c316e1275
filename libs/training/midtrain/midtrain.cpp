#include "training/midtrain/midtrain.h"

#include "core/options.h"

namespace nanochat {

MidtrainConfig::MidtrainConfig() { eval_interval = 150; }

void declare_midtrain_options(OptionList& options, MidtrainConfig& config) {
  declare_conversation_data(options, config.data);
  declare_finetune_options(options, config, {.auto_batch = true});
  options
      .add("total_batch_size", config.total_batch_size,
           "Number of tokens in one optimizer step; 0 uses the value of the base model's run.")
      .at_least(0);
  options.add("eval_tokens", config.eval_tokens, "Validate on at most this many tokens.").at_least(1).may_change();
  declare_measuring_options(options, config, "validation loss in bits per byte (bpb)");
}

TrainingResult midtrain(const MidtrainConfig& given, ProgressReporter& progress, const std::vector<ScheduledScore>& scores,
                        Communicator& communicator) {
  const Runtime runtime = select_training_runtime(given, communicator);
  MidtrainConfig config = given;
  choose_device_batch(config, runtime, communicator);
  const ConversationPlan plan{
      .stage = "midtrain",
      .packing = ConversationPacking::kStream,
      .total_batch_size = config.total_batch_size,
      .eval_tokens = config.eval_tokens,
      .declare = [copy = config](OptionList& options) mutable { declare_midtrain_options(options, copy); },
      .scores = scores,
      .communicator = &communicator};
  return train_on_conversations(config, config.data, plan, runtime, progress);
}

}  // namespace nanochat
