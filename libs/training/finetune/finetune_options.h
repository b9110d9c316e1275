#pragma once
// Common parts of midtraining, SFT and RL: the model of an earlier stage, and options.

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
  std::int64_t max_steps = -1;          // stop after this many steps, without changing the schedule
  std::int64_t num_iterations = -1;     // optimizer steps; -1: num_epochs of the data
  double num_epochs = 1.0;
  std::int64_t device_batch_size = 0;   // rows; 0: the value of the base model's training; or kAutoDeviceBatch
};

// A learning rate that is the one which the base model was trained with.
inline constexpr double kInherited = -1.0;

struct FinetuneForms {
  bool inherited_rates = false;  // learning rates may be kInherited
  bool auto_batch = false;       // the device batch size may be kAutoDeviceBatch
};
// The options of these stages, in order: those before and those after the stage's own.
void declare_finetune_options(OptionList& options, FinetuneConfig& config, const FinetuneForms& forms = {});
void declare_measuring_options(OptionList& options, FinetuneConfig& config, const std::string& evaluated);

// The model that a stage starts from.
struct BaseModel {
  StoredModel stored;
  std::string stage = {};     // the stage that trained it; empty if the checkpoint does not say
  nlohmann::json config = nlohmann::json::object();  // its resolved configuration

  // A number of that configuration, or `otherwise`.
  std::int64_t inherit(const char* key, std::int64_t otherwise) const;
  double inherit_rate(const char* key, double otherwise) const;
  // Options in which learning rates that are kInherited have their values: those of the base model's training before they
  // were scaled by its batch size, or the reference's.
  TrainerOptions with_rates(TrainerOptions options) const;
  // Steps that the optimizer of its training has taken.
  std::int64_t optimizer_steps() const;
};

// Opens --base-model for `stage`. Throws ConfigError if there is none or if it comes from a later stage, and
// CheckpointError as open_model and if the checkpoint has no tokenizer with the tokens of the chat format.
BaseModel open_base_model(const FinetuneConfig& config, std::string_view stage);

// Gives a device batch size of kAutoDeviceBatch its number of rows. All processes call this.
void choose_device_batch(FinetuneConfig& config, const Runtime& runtime, Communicator& communicator);

// min(iterations, --max-steps).
std::int64_t steps_to_take(const FinetuneConfig& config, std::int64_t iterations);

}  // namespace nanochat
