#include "training/trainer/trainer_options.h"

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
  return options;
}

void declare_run_options(OptionList& options, TrainerOptions& config) {
  options.add("output_dir", config.output_dir, "folder of the run").not_in_resolved();
  options.add("resume", config.resume, "continue a run: `latest`, or a checkpoint of it").not_in_resolved();
  declare_runtime_options(options, config.runtime);
}

void declare_data_options(OptionList& options, TrainerOptions& config, const std::string& fixed, const std::string& work) {
  options.add("seed", config.seed, "fixes " + fixed);
  options.add("workers", config.workers, "threads that " + work + "; 0: every core").at_least(0).not_in_resolved();
}

void declare_learning_rates(OptionList& options, TrainerOptions& config) {
  options.add("embedding_lr", config.embedding_lr, "learning rate of the embedding (AdamW)").at_least(0);
  options.add("unembedding_lr", config.unembedding_lr, "learning rate of the head (AdamW)").at_least(0);
  options.add("matrix_lr", config.matrix_lr, "learning rate of the matrices (Muon)").at_least(0);
}

void declare_step_options(OptionList& options, TrainerOptions& config) {
  options.add("weight_decay", config.weight_decay, "decoupled weight decay of embedding and head; with nanochat-2026-07 of the matrices, before it is scaled").at_least(0);
  options.add("muon_dtype", config.muon_dtype, "precision of Muon's Newton-Schulz iteration; auto: the faster one; the reference has bfloat16")
      .one_of({"auto", "float32", "bfloat16"})
      .may_change();
  options.add("grad_clip", config.grad_clip, "largest norm of the gradient; 0: not clipped").at_least(0);
  options.add("skip_bad_steps", config.skip_bad_steps,
              "batches with a NaN or Inf in loss or gradient that may be skipped before training stops")
      .at_least(0)
      .may_change();
}

void declare_checkpoint_options(OptionList& options, TrainerOptions& config, const std::string& best) {
  options.add("checkpoint_interval", config.checkpoint_interval, "steps between checkpoints; -1: at the end only").above(0, -1).may_change();
  options.add("keep_last", config.keep_last, "newest checkpoints to keep; 0: all").at_least(0).may_change();
  options.add("keep_best", config.keep_best, "save and keep the checkpoint of the " + best + " too, as checkpoints/best").may_change();
  options.add("async_save", config.async_save,
              "write checkpoints while training goes on, from a copy in memory; false: training waits")
      .not_in_resolved();
  options.add("log_interval", config.log_interval, "steps between lines of log.txt").at_least(1).may_change();
}

}  // namespace nanochat
