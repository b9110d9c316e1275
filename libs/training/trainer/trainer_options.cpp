#include "training/trainer/trainer_options.h"

#include <nlohmann/json.hpp>

#include "core/options.h"
#include "model/config.h"

namespace nanochat {

OptimizerOptions TrainerOptions::optimizer_options(const Runtime& on, const GptConfig& model) const {
  OptimizerOptions options;
  options.rules = model.is_2026() ? OptimizerRules::kNanochat2026_07 : OptimizerRules::kNanochat2025_12;
  options.scalar_lr = scalar_lr * init_lr_frac;
  options.embedding_lr = embedding_lr * init_lr_frac;
  options.unembedding_lr = unembedding_lr * init_lr_frac;
  options.matrix_lr = matrix_lr * init_lr_frac;
  options.adamw.weight_decay = weight_decay;
  if (muon_dtype == "auto") {
    options.muon.dtype = faster_on(on.device, on.threads, Workload::kTraining);
  } else {
    options.muon.dtype = muon_dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  }
  options.normuon.dtype = options.muon.dtype;
  options.state_dtype = optimizer_state_dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  options.gradient_comm_dtype = grad_comm_dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  return options;
}

void declare_run_options(OptionList& options, TrainerOptions& config) {
  options.add("output_dir", config.output_dir, "Folder of the run, for checkpoints, metrics and logs.").not_in_resolved();
  options
      .add("resume", config.resume,
           "Resume a run in --output-dir: `latest`, or the path of one of its "
           "checkpoints.")
      .not_in_resolved();
  declare_runtime_options(options, config.runtime);
}

void declare_data_options(OptionList& options, TrainerOptions& config, const std::string& fixed, const std::string& work) {
  options.add("seed", config.seed, "Random seed for " + fixed + ".");
  options.add("workers", config.workers, "Number of threads that " + work + "; 0 uses every core.")
      .at_least(0)
      .not_in_resolved();
}

void declare_learning_rates(OptionList& options, TrainerOptions& config, bool inherits) {
  const auto declare = [&](const char* name, double& rate, const std::string& help) {
    if (!inherits) {
      options.add(name, rate, help + ".").at_least(0);
      return;
    }
    options.add(name, rate, help + "; -1 uses the one that the base model was trained with.")
        .check([](const nlohmann::json& value) {
          return value >= 0.0 || value == -1.0 ? std::string() : std::string("at least 0, or -1");
        });
  };
  declare("embedding_lr", config.embedding_lr, "Learning rate of the token embedding (AdamW)");
  declare("unembedding_lr", config.unembedding_lr, "Learning rate of the output head (AdamW)");
  declare("matrix_lr", config.matrix_lr, "Learning rate of the weight matrices (Muon)");
}

bool is_default(OptionList& options, const std::string& name) {
  const Option* option = options.find(name);
  return option != nullptr && option->source() == "default";
}

void declare_schedule_options(OptionList& options, double& warmup_ratio, double& warmdown_ratio, double& final_lr_frac) {
  options.add("warmup_ratio", warmup_ratio, "Fraction of the steps in which the learning rates rise.").at_least(0).at_most(1);
  options.add("warmdown_ratio", warmdown_ratio, "Fraction of the steps, at the end, in which the learning rates fall.")
      .at_least(0)
      .at_most(1);
  options.add("final_lr_frac", final_lr_frac, "Learning rates at the last step, as a fraction of their initial values.")
      .at_least(0)
      .at_most(1);
}

void declare_shard_option(OptionList& options, std::string& shard) {
  options
      .add(
          "shard", shard,
          "What several processes divide among them. optimizer: the optimizer's state (ZeRO-2). full: also master weights, "
          "weights and gradients, for models that do not fit one device (ZeRO-3, FSDP); each layer's weights are gathered when "
          "they are needed, in each forward and backward pass. With one process, both are the same.")
      .one_of({"optimizer", "full"})
      .may_change();
}

void declare_fp8_option(OptionList& options, bool& fp8) {
  constexpr const char* kHelp =
      "Multiply the matrices of the layers in 8-bit floating point in training, with one scale per tensor; the output head "
      "stays in bfloat16. Needs a GPU of compute capability 9.0 or later (H100, H200) and bfloat16. Faster for large models, "
      "from about depth 12 on. Evaluation, samples and checkpoints are as without it.";
  options.add("fp8", fp8, kHelp).may_change();
}

void declare_deterministic_option(OptionList& options, bool& deterministic) {
  options
      .add(
          "deterministic", deterministic,
          "On a GPU, use only kernels that give the same bits each time, so that a training that is repeated or resumed on the "
          "same kind of GPU ends with the same weights. It is slower, because the backward pass of attention then adds up in a "
          "fixed order. On a CPU, training is repeatable in any case.")
      .may_change();
}

void declare_step_options(OptionList& options, TrainerOptions& config) {
  options
      .add("weight_decay", config.weight_decay,
           "Decoupled weight decay of the embedding and the head (AdamW). For models of nanochat-2026-07: weight decay of the "
           "matrices (Muon) at depth 12, which the scaling law adapts to the model.")
      .at_least(0);
  options
      .add("muon_dtype", config.muon_dtype,
           "Precision of Muon's orthogonalisation (Newton-Schulz or Polar Express). auto uses the faster one on this machine. "
           "The Python nanochat uses bfloat16.")
      .one_of({"auto", "float32", "bfloat16"})
      .may_change();
  options.add("grad_clip", config.grad_clip, "Clip gradients to this global norm; 0 disables clipping.").at_least(0);
  options
      .add("optimizer_state_dtype", config.optimizer_state_dtype,
           "Type in which the optimizer's state is stored: Muon's momentum and AdamW's moments. bfloat16 halves its memory and "
           "its part of a checkpoint, and rounds the moments; updates are still computed in float32.")
      .one_of({"float32", "bfloat16"})
      .may_change();
  options
      .add("grad_comm_dtype", config.grad_comm_dtype,
           "Type in which several processes send gradients to each other. bfloat16 halves these bytes, and rounds sums.")
      .one_of({"float32", "bfloat16"})
      .may_change();
  declare_shard_option(options, config.shard);
  options
      .add("recompute", config.recompute,
           "Keep only the input of each layer in the forward pass, and compute the rest again in the backward pass (activation "
           "recomputation). Takes much less memory and about a fifth more time; the results are the same.")
      .may_change();
  declare_fp8_option(options, config.fp8);
  declare_deterministic_option(options, config.deterministic);
  options
      .add("skip_bad_steps", config.skip_bad_steps,
           "Skip up to this many batches in which the loss or a gradient is NaN or Inf; the next one stops "
           "training.")
      .at_least(0)
      .may_change();
}

void declare_checkpoint_options(OptionList& options, TrainerOptions& config, const std::string& best) {
  options.add("checkpoint_interval", config.checkpoint_interval, "Save a checkpoint every N steps; -1 only at the end.")
      .above(0, -1)
      .may_change();
  options.add("keep_last", config.keep_last, "Number of newest checkpoints to keep; 0 keeps all.").at_least(0).may_change();
  options.add("keep_best", config.keep_best, "Also save the checkpoint with the " + best + ", as checkpoints/best.")
      .may_change();
  options
      .add("async_save", config.async_save,
           "Write checkpoints in the background from a copy in memory. With --no-async-save, training waits.")
      .not_in_resolved();
  options.add("log_interval", config.log_interval, "Write a line to log.txt every N steps.").at_least(1).may_change();
}

}  // namespace nanochat
