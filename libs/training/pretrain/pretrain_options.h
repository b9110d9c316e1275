#pragma once
// Configuration of `nanochat pretrain`. Defaults are those of the reference (scripts/base_train.py) unless said otherwise: those of
// its version of July 2026 here, and those of December 2025 after apply_recipe().

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/config.h"
#include "training/pretrain/scaling_laws.h"
#include "training/trainer/horizon.h"
#include "training/trainer/trainer_options.h"

namespace nanochat {

class OptionList;

inline constexpr double kParamDataRatio2026 = 12.0;  // tokens per weight

struct PretrainConfig : TrainerOptions {
  std::vector<std::string> data_dir;
  std::filesystem::path tokenizer;  // empty: the one beside the token shards
  std::string bos_token;  // see TokenizerLoadOptions
  std::string text_column;  // see ReaderOptions; for raw text

  // nanochat-2025-12 or nanochat-2026-07: architecture, optimizer, schedules, and the laws for batch size and learning rates.
  // It also determines the defaults of options that are not given; see apply_recipe().
  std::string recipe{architecture_name(Architecture::kNanochat2026_07)};

  // Model. 0 or a negative number: derived from depth.
  std::int64_t depth = 20, sequence_len = 2048;
  std::int64_t n_head = 0, n_kv_head = 0, n_embd = 0, intermediate_size = 0;
  double rope_base = 100000.0, softcap = 15.0;
  std::string rope_table_dtype = "float32";
  std::string window_pattern = "SSSL";  // of nanochat-2026-07

  // Horizon: the first of these that is given applies.
  double target_minutes = -1.0;  // minutes of steps; num_iterations is then the minimum number of steps
  std::int64_t num_iterations = -1;
  double target_flops = -1.0;
  double target_param_data_ratio = kParamDataRatio2026;

  std::int64_t device_batch_size = 32;  // rows, or kAutoDeviceBatch
  std::int64_t total_batch_size = -1;  // tokens; -1: by the laws of nanochat-2026-07
  std::int64_t warmup_steps = 40;  // 0: warmup_ratio counts
  double warmup_ratio = 0.0, warmdown_ratio = 0.65, final_lr_frac = 0.05;

  std::string packing = "best-fit";
  std::int64_t validation_every = 20;  // raw text only; 0: none held out
  std::int64_t eval_tokens = 20 * 524288;
  std::vector<std::string> sample_prompts;

  PretrainConfig();
  GptConfig model_config(std::int64_t vocab_size) const;  // throws ConfigError
  Horizon horizon(const GptConfig& model) const;  // throws ConfigError when none is given
  bool is_2026() const { return recipe == architecture_name(Architecture::kNanochat2026_07); }
  // Of nanochat-2026-07 (scaling_laws.h).
  ScalingPlan scaling(const GptConfig& model) const;
  // The options of the trainer, with learning rates scaled as the recipe says.
  TrainerOptions trainer_options(const GptConfig& model) const;
};

// Throws ConfigError unless a step, whose size is known, divides into micro-batches of so many processes; of kAutoDeviceBatch,
// into rows.
void check_batch_sizes(const PretrainConfig& config, int processes);
// The rows of a step that each of so many processes computes.
std::int64_t rows_of_process(const PretrainConfig& config, int processes);

// Declares every option. The resolved configuration of a run has all except those that belong to the invocation.
void declare_pretrain_options(OptionList& options, PretrainConfig& config);
// Gives options of declare_pretrain_options() that nobody set the defaults of the recipe. A run that is resumed keeps its recipe:
// where nobody set one, it is that of the run's config.json (nanochat-2025-12 if that file, of an older version of this program,
// names none). Call it once all sources were read. Throws ConfigError for a batch size by a law that the recipe does not have.
void apply_recipe(OptionList& options, PretrainConfig& config);

}  // namespace nanochat
