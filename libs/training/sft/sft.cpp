#include "training/sft/sft.h"

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "core/options.h"

namespace nanochat {

SftConfig::SftConfig() {
  init_lr_frac = 0.02;
  eval_interval = 100;
}

void declare_sft_options(OptionList& options, SftConfig& config) {
  declare_conversation_data(options, config.data);
  declare_finetune_options(options, config, {.inherited_rates = true, .auto_batch = true});
  options
      .add("recipe", config.recipe,
           "Version of the Python nanochat whose defaults to use for options that are not given. nanochat-2025-12 continues a "
           "model of `midtrain` at low learning rates. nanochat-2026-07 continues a base model, which has had no midtraining, "
           "at the learning rates of its pretraining. auto takes nanochat-2026-07 for base models of that version, and "
           "nanochat-2025-12 for all others.")
      .one_of({"auto", "nanochat-2025-12", "nanochat-2026-07"});
  options
      .add(
          "packing", config.packing,
          "How conversations fill rows. best-fit packs whole conversations into each row, without attention between "
          "them. best-fit-pad chooses from a buffer of 100 conversations, with attention between those of a row, as the Python "
          "nanochat of July 2026 does. padding puts one conversation in each row.")
      .one_of({"best-fit", "best-fit-pad", "padding"});
  options
      .add("examples_per_step", config.examples_per_step,
           "Number of conversations in one optimizer step, on average; 0 uses the number of tokens that a step of the base "
           "model's training had.")
      .at_least(0);
  options
      .add("total_batch_size", config.total_batch_size,
           "Number of tokens in one optimizer step, instead of --examples-per-step; 0 disables this.")
      .at_least(0);
  declare_schedule_options(options, config.warmup_ratio, config.warmdown_ratio, config.final_lr_frac);
  options.add("load_optimizer", config.load_optimizer,
              "Begin with the optimizer state of the base model's checkpoint (a warm start); without it, the state begins at "
              "zero.");
  options.add("eval_tokens", config.eval_tokens, "Validate on at most this many tokens.").at_least(1).may_change();
  declare_measuring_options(options, config, "validation loss");
}

std::string sft_recipe(const GptConfig& base, std::string_view last_stage) {
  const bool newest = base.is_2026() && last_stage == "pretrain";
  return std::string(architecture_name(newest ? Architecture::kNanochat2026_07 : Architecture::kNanochat2025_12));
}

void apply_recipe(OptionList& options, SftConfig& config) {
  if (config.recipe == "auto" && !config.base_model.empty()) {  // without one, sft() throws
    const CheckpointSummary base = describe_checkpoint(config.base_model);
    const nlohmann::json& state = base.training_state;
    config.recipe = sft_recipe(base.config, state.is_object() ? state.value("stage", "") : "");
  }
  if (!config.is_2026()) return;
  set_default(options, "packing", config.packing, "best-fit-pad");
  set_default(options, "embedding_lr", config.embedding_lr, kInherited);
  set_default(options, "unembedding_lr", config.unembedding_lr, kInherited);
  set_default(options, "matrix_lr", config.matrix_lr, kInherited);
  set_default(options, "init_lr_frac", config.init_lr_frac, 0.8);
  set_default(options, "examples_per_step", config.examples_per_step, 0);
  set_default(options, "warmdown_ratio", config.warmdown_ratio, 0.5);
  set_default(options, "load_optimizer", config.load_optimizer, true);
  set_default(options, "eval_interval", config.eval_interval, 200);
  set_default(options, "eval_tokens", config.eval_tokens, 40 * 524288);
}

TrainingResult sft(const SftConfig& given, ProgressReporter& progress, const std::vector<ScheduledScore>& scores,
                   Communicator& communicator) {
  const Runtime runtime = select_training_runtime(given, communicator);
  SftConfig config = given;
  choose_device_batch(config, runtime, communicator);
  const ConversationPlan plan{.stage = "sft",
                              .packing = config.packing == "padding"        ? ConversationPacking::kPadded
                                         : config.packing == "best-fit-pad" ? ConversationPacking::kBestFitPad
                                                                            : ConversationPacking::kBestFit,
                              .total_batch_size = config.total_batch_size,
                              .examples_per_step = config.examples_per_step,
                              .warmup_ratio = config.warmup_ratio,
                              .warmdown_ratio = config.warmdown_ratio,
                              .final_lr_frac = config.final_lr_frac,
                              .muon_warmup = config.is_2026(),
                              .load_optimizer = config.load_optimizer,
                              .eval_tokens = config.eval_tokens,
                              .judge_by_bpb = false,
                              .recipe = config.recipe,
                              .declare = [copy = config](OptionList& options) mutable { declare_sft_options(options, copy); },
                              .scores = scores,
                              .communicator = &communicator};
  return train_on_conversations(config, config.data, plan, runtime, progress);
}

}  // namespace nanochat
