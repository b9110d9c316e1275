#pragma once
// Configuration of `nanochat pretrain`. Defaults are those of the reference (scripts/base_train.py) unless said otherwise.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/config.h"
#include "training/trainer/horizon.h"
#include "training/trainer/trainer_options.h"

namespace nanochat {

class OptionList;

struct PretrainConfig : TrainerOptions {
  std::vector<std::string> data_dir;
  std::filesystem::path tokenizer;   // empty: the one beside the token shards
  std::string bos_token;             // see TokenizerLoadOptions
  std::string text_column;           // see ReaderOptions; for raw text

  // Model. 0 or a negative number: derived from depth.
  std::int64_t depth = 20, sequence_len = 2048;
  std::int64_t n_head = 0, n_kv_head = 0, n_embd = 0, intermediate_size = 0;
  double rope_base = 10000.0, softcap = 15.0;
  std::string rope_table_dtype = "float32";

  // Horizon: the first of these that is given applies.
  double target_minutes = -1.0;             // minutes of steps; num_iterations is then the minimum number of steps
  std::int64_t num_iterations = -1;
  double target_flops = -1.0;
  double target_param_data_ratio = 20.0;

  std::int64_t device_batch_size = 32;      // rows
  std::int64_t total_batch_size = 524288;   // tokens
  double warmup_ratio = 0.0, warmdown_ratio = 0.2, final_lr_frac = 0.0;

  std::string packing = "best-fit";
  std::int64_t validation_every = 20;       // raw text only; 0: none held out
  std::int64_t eval_tokens = 20 * 524288;
  std::vector<std::string> sample_prompts;

  PretrainConfig();
  GptConfig model_config(std::int64_t vocab_size) const;  // throws ConfigError
  Horizon horizon(const GptConfig& model) const;          // throws ConfigError when none is given
};

// Declares every option. The resolved configuration of a run has all except those that belong to the invocation.
void declare_pretrain_options(OptionList& options, PretrainConfig& config);

}  // namespace nanochat
