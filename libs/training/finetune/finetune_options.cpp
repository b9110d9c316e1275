#include "training/finetune/finetune_options.h"

#include <algorithm>
#include <array>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/options.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"
#include "training/trainer/memory_check.h"

namespace nanochat {
namespace {

constexpr std::array<std::string_view, 4> kStages = {"pretrain", "midtrain", "sft", "rl"};

std::ptrdiff_t place_of(std::string_view stage) { return std::find(kStages.begin(), kStages.end(), stage) - kStages.begin(); }

void require_chat_tokens(const BaseModel& base) {
  const std::string where = base.stored.folder.string();
  if (!base.stored.tokenizer)
    throw CheckpointError(where + ": the checkpoint has no tokenizer, so conversations cannot be rendered");
  for (const std::string_view name :
       {kUserStart, kUserEnd, kAssistantStart, kAssistantEnd, kPythonStart, kPythonEnd, kOutputStart, kOutputEnd}) {
    try {
      base.stored.tokenizer->require_special(name);
    } catch (const TokenizerError& error) {
      throw CheckpointError(fmt::format("{}: its tokenizer cannot write conversations: {}", where, error.what()));
    }
  }
}

}  // namespace

void declare_finetune_options(OptionList& options, FinetuneConfig& config, const FinetuneForms& forms) {
  options
      .add("base_model", config.base_model,
           "Model to start from: a run or checkpoint of an earlier stage, or the name of a run in runs/.")
      .may_change();
  declare_run_options(options, config);
  declare_data_options(options, config, "the order of the data and all sampling", "render conversations");
  options.add("max_steps", config.max_steps, "Stop after N steps without changing the schedule; -1 disables this.")
      .at_least(-1)
      .not_in_resolved();
  options.add("num_iterations", config.num_iterations, "Number of optimizer steps; -1 computes it from --num-epochs.")
      .at_least(-1)
      .may_change();
  options.add("num_epochs", config.num_epochs, "Number of passes over the data (epochs); 0 takes no optimizer step.")
      .at_least(0)
      .may_change();
  const std::string rows = "Maximum number of rows in one forward pass; 0 uses the value of the base model's run.";
  Option& batch = options
                      .add("device_batch_size", config.device_batch_size, rows + (forms.auto_batch ? kAutoDeviceBatchHelp : ""))
                      .at_least(0)
                      .may_change();
  if (forms.auto_batch) batch.or_word("auto", kAutoDeviceBatch);
  declare_learning_rates(options, config, forms.inherited_rates);
  options.add("init_lr_frac", config.init_lr_frac, "Multiply the three learning rates above by this.").at_least(0);
  declare_step_options(options, config);
}

void declare_measuring_options(OptionList& options, FinetuneConfig& config, const std::string& evaluated) {
  options.add("eval_interval", config.eval_interval, "Measure " + evaluated + " every N steps; 0 never, -1 only at the end.")
      .at_least(-1)
      .may_change();
  declare_checkpoint_options(options, config, "best " + evaluated);
}

std::int64_t BaseModel::inherit(const char* key, std::int64_t otherwise) const {
  const auto value = config.find(key);
  return value != config.end() && value->is_number_integer() && *value > 0 ? value->get<std::int64_t>() : otherwise;
}

double BaseModel::inherit_rate(const char* key, double otherwise) const {
  const auto value = config.find(key);
  return value != config.end() && value->is_number() && *value >= 0.0 ? value->get<double>() : otherwise;
}

TrainerOptions BaseModel::with_rates(TrainerOptions options) const {
  const auto resolve = [this](double& rate, const char* key, double otherwise) {
    if (rate == kInherited) rate = inherit_rate(key, otherwise);
  };
  resolve(options.embedding_lr, "embedding_lr", 0.3);
  resolve(options.unembedding_lr, "unembedding_lr", 0.004);
  resolve(options.matrix_lr, "matrix_lr", 0.02);
  return options;
}

std::int64_t BaseModel::optimizer_steps() const {
  const nlohmann::json& state = stored.training_state;
  return state.is_object() ? state.value("optimizer_steps", state.value("step", std::int64_t{0})) : 0;
}

BaseModel open_base_model(const FinetuneConfig& config, std::string_view stage) {
  if (config.base_model.empty()) throw ConfigError("--base-model is missing: name a run or checkpoint to begin from");
  BaseModel base{open_model(config.base_model)};
  const nlohmann::json& state = base.stored.training_state;
  base.config = nlohmann::json::object();
  if (state.is_object()) {
    base.stage = state.value("stage", "");
    base.config = state.value("config", base.config);
  }
  const auto place = place_of(base.stage), own = place_of(stage);
  if (place < static_cast<std::ptrdiff_t>(kStages.size()) && place > own) {
    throw ConfigError(fmt::format("--base-model {}: comes from {}, which {} would undo; begin from a checkpoint of {}",
                                  config.base_model, base.stage, stage,
                                  fmt::join(kStages.begin(), kStages.begin() + own + 1, ", ")));
  }
  if (stage == "rl" && base.stage == "pretrain") {
    throw ConfigError(
        fmt::format("--base-model {}: comes from pretraining and has never seen a conversation, so no answer of its "
                    "would earn a reward; begin from a checkpoint of midtrain or sft",
                    config.base_model));
  }
  require_chat_tokens(base);
  return base;
}

void choose_device_batch(FinetuneConfig& config, const Runtime& runtime, Communicator& communicator) {
  if (config.device_batch_size != kAutoDeviceBatch || config.base_model.empty()) return;  // open_base_model() needs it
  config.device_batch_size = choose_device_batch(config, describe_checkpoint(config.base_model).config, runtime, communicator);
}

std::int64_t steps_to_take(const FinetuneConfig& config, std::int64_t iterations) {
  return config.max_steps >= 0 ? std::min(config.max_steps, iterations) : iterations;
}

}  // namespace nanochat
