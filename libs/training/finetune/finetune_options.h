#pragma once
// What midtraining, SFT and RL have in common: a model of an earlier stage to begin from, and options.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "training/trainer/trainer.h"

namespace nanochat {

class OptionList;

struct FinetuneConfig : TrainerOptions {
  std::string base_model;               // a run or checkpoint, or the name of a run in runs/
  std::int64_t max_steps = -1;          // a trial: end after so many, whatever the horizon
  std::int64_t num_iterations = -1;     // optimizer steps; -1: num_epochs of the data
  double num_epochs = 1.0;
  std::int64_t device_batch_size = 0;   // rows; 0: that of the base model's training
};

// The options of these stages, in order: those before the stage's own, and those behind.
void declare_finetune_options(OptionList& options, FinetuneConfig& config);
void declare_measuring_options(OptionList& options, FinetuneConfig& config, const std::string& evaluated);

// The model that a stage begins from.
struct BaseModel {
  StoredModel stored;
  std::string stage = {};     // of its training; empty when the checkpoint does not say
  nlohmann::json config = nlohmann::json::object();  // its resolved configuration

  // A number of that configuration, or `otherwise`.
  std::int64_t inherit(const char* key, std::int64_t otherwise) const;
};

// Opens --base-model for `stage`. Throws ConfigError when there is none or it comes from a stage that does not lead to
// this one, CheckpointError as open_model and when the checkpoint has no tokenizer with the tokens of the chat format.
BaseModel open_base_model(const FinetuneConfig& config, std::string_view stage);

// min(iterations, --max-steps).
std::int64_t steps_to_take(const FinetuneConfig& config, std::int64_t iterations);

}  // namespace nanochat
