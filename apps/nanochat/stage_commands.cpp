#include <iostream>

#include <nlohmann/json.hpp>

#include "command_line.h"
#include "commands.h"
#include "ranks.h"
#include "training/midtrain/midtrain.h"
#include "training/rl/rl.h"
#include "training/sft/sft.h"
#include "training_report.h"
#include "training_scores.h"

namespace nanochat::cli {
namespace {

void print(const TrainingResult& result, const std::string& score, const FinetuneConfig& config, bool as_json) {
  if (as_json) {
    std::cout << training_json(result, score).dump() << '\n';
  } else {
    print_training(result, score, config.output_dir);
  }
}

// A stage with the scores that are asked while it trains.
template <class Config>
struct Scored : Config {
  ScoreOptions scores;
};

}  // namespace

void add_midtrain(CommandLine& command_line) {
  auto config = std::make_shared<Scored<MidtrainConfig>>();
  Subcommand& command = command_line.add(
      "midtrain",
      "Continue training a base model on conversations, with the loss on every token, so that it learns the chat format "
      "(midtraining).",
      "nanochat midtrain --base-model runs/base --mixture configs/toy_mixture.json --output-dir runs/mid");
  declare_midtrain_options(command.options(), *config);
  declare_task_scores(command.options(), config->scores);
  command.required("base_model").required("output_dir");
  auto distributed = std::make_shared<CommunicatorOptions>(communicator_options("midtrain"));
  declare_distributed_options(command.options(), *distributed);
  command.run([config, distributed, &command](Context& context) {
    Ranks ranks(*distributed, config->runtime, shared_configuration(command));
    const auto scores = ranks.is_root() ? task_scores(config->scores) : others_scores(config->scores);
    const TrainingResult result = midtrain(*config, ranks.progress(context), scores, ranks.communicator());
    if (ranks.is_root()) print(result, "bpb", *config, context.json);
    return ExitCode::kOk;
  });
}

void add_sft(CommandLine& command_line) {
  auto config = std::make_shared<Scored<SftConfig>>();
  config->output_dir = "runs/sft";
  Subcommand& command = command_line.add(
      "sft", "Fine-tune a model on conversations, with the loss only on the assistant's messages (supervised fine-tuning).",
      "nanochat sft --base-model runs/base --data-dir my.jsonl");
  declare_sft_options(command.options(), *config);
  declare_task_scores(command.options(), config->scores);
  command.required("base_model");
  auto distributed = std::make_shared<CommunicatorOptions>(communicator_options("sft"));
  declare_distributed_options(command.options(), *distributed);
  command.run([config, distributed, &command](Context& context) {
    apply_recipe(command.options(), *config);
    Ranks ranks(*distributed, config->runtime, shared_configuration(command));
    const auto scores = ranks.is_root() ? task_scores(config->scores) : others_scores(config->scores);
    const TrainingResult result = sft(*config, ranks.progress(context), scores, ranks.communicator());
    if (ranks.is_root()) print(result, "loss", *config, context.json);
    return ExitCode::kOk;
  });
}

void add_rl(CommandLine& command_line) {
  auto config = std::make_shared<RlConfig>();
  Subcommand& command = command_line.add(
      "rl",
      "Improve a chat model by reinforcement learning: sample several answers to each question, check which are correct, and "
      "make those more likely.",
      "nanochat rl --base-model runs/sft --mixture '[{\"task\": \"toy-spelling\"}]' "
      "--validation-mixture '[{\"task\": \"toy-spelling\", \"split\": \"test\"}]' --output-dir runs/rl");
  declare_rl_options(command.options(), *config);
  command.required("base_model").required("mixture").required("validation_mixture").required("output_dir");
  auto distributed = std::make_shared<CommunicatorOptions>(communicator_options("rl"));
  declare_distributed_options(command.options(), *distributed);
  command.run([config, distributed, &command](Context& context) {
    Ranks ranks(*distributed, config->runtime, shared_configuration(command));
    const TrainingResult result = rl(*config, ranks.progress(context), ranks.communicator());
    if (ranks.is_root()) print(result, "failure_rate", *config, context.json);
    return ExitCode::kOk;
  });
}

}  // namespace nanochat::cli
