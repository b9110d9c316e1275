#pragma once
// What every stage can be told, declared once: each stage puts its own options between these groups.

#include <cstdint>
#include <filesystem>
#include <string>

#include "optim/optimizer.h"
#include "runtime/runtime.h"

namespace nanochat {

class OptionList;

// Fields of every stage's configuration. Learning rates are the reference's.
struct TrainerOptions {
  std::filesystem::path output_dir;
  std::string resume;                   // empty: new run; "latest" or a checkpoint
  RuntimeOptions runtime;
  std::uint64_t seed = 42;
  int workers = 0;                      // threads that make data ready; 0: every core

  double embedding_lr = 0.2, unembedding_lr = 0.004, matrix_lr = 0.02, weight_decay = 0.0;
  double scalar_lr = 0.5;               // of nanochat-2026-07; no option
  double init_lr_frac = 1.0;            // factor of all; pretraining has no option for it
  std::string muon_dtype = "auto";      // auto: the one that is faster, as of runtime.dtype
  double grad_clip = 0.0;               // largest norm; 0: not clipped
  std::int64_t skip_bad_steps = 0;      // batches whose loss or gradient is not finite that may be skipped

  std::int64_t eval_interval = 250;
  std::int64_t sample_interval = 2000;  // steps between calls of Stage::examine
  std::int64_t checkpoint_interval = 1000, keep_last = 3, log_interval = 10;
  bool keep_best = false;               // by Evaluation::score
  bool async_save = true;               // where memory allows

  // Learning rates with their factor; the rules are those of the model's architecture.
  OptimizerOptions optimizer_options(const Runtime& on, const GptConfig& model) const;
};

// --output-dir, --resume and where to compute.
void declare_run_options(OptionList& options, TrainerOptions& config);
// --seed and --workers; `fixed`: what the seed fixes, `work`: what the threads do.
void declare_data_options(OptionList& options, TrainerOptions& config, const std::string& fixed, const std::string& work);
// The three learning rates.
void declare_learning_rates(OptionList& options, TrainerOptions& config);
// The rest of an optimizer step: weight decay, Muon, clipping, steps that may be skipped.
void declare_step_options(OptionList& options, TrainerOptions& config);
// Checkpoints, and lines of log.txt; `best`: the measure whose best checkpoint --keep-best keeps.
void declare_checkpoint_options(OptionList& options, TrainerOptions& config, const std::string& best);

}  // namespace nanochat
