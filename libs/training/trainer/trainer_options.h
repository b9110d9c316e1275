#pragma once
// Options of all stages, declared once; each stage adds its own options between these groups.

#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>

#include "optim/optimizer.h"
#include "runtime/runtime.h"

namespace nanochat {

class OptionList;

// A --device-batch-size that choose_device_batch() (memory_check.h) replaces by a number of rows.
inline constexpr std::int64_t kAutoDeviceBatch = -1;
// What the help of that option says of `auto`.
inline constexpr const char* kAutoDeviceBatchHelp =
    " auto uses the largest number whose estimated memory fits the free memory of the device, or --memory-limit; a resumed run "
    "keeps its number if that still fits.";

// Fields of every stage's configuration. Learning rates are those of the reference.
struct TrainerOptions {
  std::filesystem::path output_dir;
  std::string resume;                   // empty: new run; "latest" or a checkpoint
  RuntimeOptions runtime;
  std::uint64_t seed = 42;
  int workers = 0;                      // threads that prepare data; 0: every core

  double embedding_lr = 0.2, unembedding_lr = 0.004, matrix_lr = 0.02, weight_decay = 0.0;
  double scalar_lr = 0.5;               // of the scales of nanochat-2026-07; no option
  double init_lr_frac = 1.0;            // multiplies the four rates; pretraining has no option for it
  std::string muon_dtype = "auto";      // auto: the faster one, as for runtime.dtype
  std::string grad_comm_dtype = "float32";  // OptimizerOptions::gradient_comm_dtype
  std::string optimizer_state_dtype = "float32";  // OptimizerOptions::state_dtype
  std::string shard = "optimizer";      // what several processes divide: "optimizer", or "full" for ShardedWeights, too
  bool recompute = false;               // Gpt::set_recompute()
  bool fp8 = false;                     // Gpt::set_fp8()
  bool deterministic = false;           // ops::DeterministicScope
  double grad_clip = 0.0;               // maximum norm; 0: no clipping
  std::int64_t skip_bad_steps = 0;      // number of batches with a NaN or Inf in loss or gradient that may be skipped

  std::int64_t eval_interval = 250;
  std::int64_t sample_interval = 2000;  // steps between calls of Stage::examine
  std::int64_t checkpoint_interval = 1000, keep_last = 3, log_interval = 10;
  bool keep_best = false;               // by Evaluation::score
  bool async_save = true;               // if memory allows

  // Learning rates with their factor; the rules are those of the model's architecture.
  OptimizerOptions optimizer_options(const Runtime& on, const GptConfig& model) const;
};

// --output-dir, --resume and the options of the device.
void declare_run_options(OptionList& options, TrainerOptions& config);
// --fp8 and --deterministic, also for commands that have no other options of a step.
void declare_fp8_option(OptionList& options, bool& fp8);
void declare_deterministic_option(OptionList& options, bool& deterministic);
// --shard, for whoever has no other options of a step.
void declare_shard_option(OptionList& options, std::string& shard);
// --seed and --workers; `fixed`: what the seed determines, `work`: what the threads do.
void declare_data_options(OptionList& options, TrainerOptions& config, const std::string& fixed, const std::string& work);
// The three learning rates. `inherits`: -1 takes the base model's.
void declare_learning_rates(OptionList& options, TrainerOptions& config, bool inherits = false);
// Whether there is an option of this name that nobody set, so that a recipe may give it another default.
bool is_default(OptionList& options, const std::string& name);
// Sets the option to this default if nobody set it.
template <class T>
void set_default(OptionList& options, const std::string& name, T& field, const std::type_identity_t<T>& value) {
  if (is_default(options, name)) field = value;
}
// How the learning rates rise and fall, as fractions of the steps.
void declare_schedule_options(OptionList& options, double& warmup_ratio, double& warmdown_ratio, double& final_lr_frac);
// Other options of an optimizer step: weight decay, Muon, clipping, skipped steps.
void declare_step_options(OptionList& options, TrainerOptions& config);
// Checkpoints, and lines of log.txt; `best`: the score whose best checkpoint --keep-best keeps.
void declare_checkpoint_options(OptionList& options, TrainerOptions& config, const std::string& best);

}  // namespace nanochat
