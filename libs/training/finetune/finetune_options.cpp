#include "training/finetune/finetune_options.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/options.h"
#include "ops/cast.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 4> kStages = {"pretrain", "midtrain", "sft", "rl"};

std::ptrdiff_t place_of(std::string_view stage) { return std::find(kStages.begin(), kStages.end(), stage) - kStages.begin(); }

fs::path path_of(const std::string& name) {
  const fs::path in_runs = fs::path("runs") / name;
  return !fs::exists(name) && fs::exists(in_runs) ? in_runs : fs::path(name);
}

void require_chat_tokens(const BaseModel& base) {
  const std::string where = base.loaded.folder.string();
  if (!base.loaded.tokenizer) throw CheckpointError(where + ": the checkpoint has no tokenizer, so conversations cannot be rendered");
  for (const std::string_view name : {kUserStart, kUserEnd, kAssistantStart, kAssistantEnd, kPythonStart, kPythonEnd, kOutputStart, kOutputEnd}) {
    try {
      base.loaded.tokenizer->require_special(name);
    } catch (const TokenizerError& error) {
      throw CheckpointError(fmt::format("{}: its tokenizer cannot write conversations: {}", where, error.what()));
    }
  }
}

}  // namespace

OptimizerOptions FinetuneConfig::optimizer_options() const {
  OptimizerOptions options;
  options.embedding_lr = embedding_lr * init_lr_frac;
  options.unembedding_lr = unembedding_lr * init_lr_frac;
  options.matrix_lr = matrix_lr * init_lr_frac;
  options.adamw.weight_decay = weight_decay;
  const bool narrow = muon_dtype == "bfloat16" || (muon_dtype == "auto" && ops::cpu_has_fast_bf16());
  options.muon.dtype = narrow ? at::kBFloat16 : at::kFloat;
  return options;
}

void declare_finetune_options(OptionList& options, FinetuneConfig& config) {
  options.add("base_model", config.base_model, "model to begin from: a run or checkpoint of an earlier stage, or the name of a run in runs/");
  options.add("output_dir", config.output_dir, "folder of the run").not_in_resolved();
  options.add("resume", config.resume, "continue a run: `latest`, or a checkpoint of it").not_in_resolved();
  declare_runtime_options(options, config.runtime);
  options.add("seed", config.seed, "fixes the order of the data and what is drawn at random");
  options.add("workers", config.workers, "threads that render conversations; 0: every core").at_least(0).not_in_resolved();
  options.add("max_steps", config.max_steps, "a trial: end after so many steps, the schedule being that of the whole; -1: do not")
      .at_least(-1)
      .not_in_resolved();
  options.add("num_iterations", config.num_iterations, "optimizer steps; -1: from the epochs").at_least(-1);
  options.add("num_epochs", config.num_epochs, "passes over the data").at_least(0);
  options.add("device_batch_size", config.device_batch_size, "rows of one forward pass, at most; 0: as the base model was trained").at_least(0);
  options.add("embedding_lr", config.embedding_lr, "learning rate of the embedding (AdamW)").at_least(0);
  options.add("unembedding_lr", config.unembedding_lr, "learning rate of the head (AdamW)").at_least(0);
  options.add("matrix_lr", config.matrix_lr, "learning rate of the matrices (Muon)").at_least(0);
  options.add("init_lr_frac", config.init_lr_frac, "factor of all three").at_least(0);
  options.add("weight_decay", config.weight_decay, "decoupled weight decay of embedding and head").at_least(0);
  options.add("muon_dtype", config.muon_dtype, "precision of Muon's Newton-Schulz iteration; the reference has bfloat16")
      .one_of({"auto", "float32", "bfloat16"});
  options.add("grad_clip", config.grad_clip, "largest norm of the gradient; 0: not clipped").at_least(0);
  options.add("skip_bad_steps", config.skip_bad_steps,
              "batches with a NaN or Inf in loss or gradient that may be skipped before training stops")
      .at_least(0);
}

void declare_trainer_options(OptionList& options, FinetuneConfig& config, const std::string& evaluated) {
  options.add("eval_interval", config.eval_interval, "steps between measurements of " + evaluated + "; -1: at the end only");
  options.add("checkpoint_interval", config.checkpoint_interval, "steps between checkpoints; -1: at the end only");
  options.add("keep_last", config.keep_last, "newest checkpoints to keep; 0: all").at_least(0);
  options.add("keep_best", config.keep_best, "save and keep the checkpoint of the best " + evaluated + " too, as checkpoints/best");
  options.add("async_save", config.async_save,
              "write checkpoints while training goes on, from a copy in memory; false: training waits")
      .not_in_resolved();
  options.add("log_interval", config.log_interval, "steps between lines of log.txt").at_least(1);
}

std::int64_t BaseModel::inherit(const char* key, std::int64_t otherwise) const {
  const auto value = config.find(key);
  return value != config.end() && value->is_number_integer() && *value > 0 ? value->get<std::int64_t>() : otherwise;
}

void BaseModel::copy_weights(Gpt& model) const {
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    model.parameters()[i].value.copy_(loaded.model->parameters()[i].value);
  }
  model.refresh_compute();
}

BaseModel open_base_model(const FinetuneConfig& config, std::string_view stage, at::ScalarType dtype) {
  if (config.base_model.empty()) throw ConfigError("--base-model is missing: name a run or checkpoint to begin from");
  BaseModel base;
  base.loaded = load_model(path_of(config.base_model), dtype);
  const nlohmann::json& state = base.loaded.training_state;
  base.config = nlohmann::json::object();
  if (state.is_object()) {
    base.stage = state.value("stage", "");
    base.config = state.value("config", base.config);
  }
  const auto place = place_of(base.stage), own = place_of(stage);
  if (place < static_cast<std::ptrdiff_t>(kStages.size()) && place > own) {
    throw ConfigError(fmt::format("--base-model {}: comes from {}, which {} would undo; begin from a checkpoint of {}",
                                  config.base_model, base.stage, stage, fmt::join(kStages.begin(), kStages.begin() + own + 1, ", ")));
  }
  if (stage == "rl" && base.stage == "pretrain") {
    throw ConfigError(fmt::format("--base-model {}: comes from pretraining and has never seen a conversation, so no answer of its "
                                  "would earn a reward; begin from a checkpoint of midtrain or sft", config.base_model));
  }
  require_chat_tokens(base);
  return base;
}

std::int64_t steps_to_take(const FinetuneConfig& config, std::int64_t iterations) {
  return config.max_steps >= 0 ? std::min(config.max_steps, iterations) : iterations;
}

}  // namespace nanochat
