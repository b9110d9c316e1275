#include <cmath>
#include <iostream>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/format.h"
#include "training/pretrain/pretrain.h"
#include "training_scores.h"

namespace nanochat::cli {
namespace {

void print_json(const PretrainResult& result) {
  nlohmann::json json{{"steps", result.steps},
                      {"parameters", result.parameters},
                      {"training_seconds", result.training_seconds},
                      {"checkpoint_seconds", result.checkpoint_seconds},
                      {"tokens_per_second", result.tokens_per_second},
                      {"interrupted", result.interrupted},
                      {"checkpoint", result.checkpoint.string()},
                      {"samples", result.samples}};
  if (std::isfinite(result.minimum_validation_bpb())) {
    json["validation_bpb"] = result.validation_bpb();
    json["minimum_validation_bpb"] = result.minimum_validation_bpb();
  }
  std::cout << json.dump() << '\n';
}

void print_text(const PretrainResult& result, const PretrainConfig& config) {
  for (const std::string& sample : result.samples) std::cout << "  " << sample << '\n';
  std::cout << fmt::format("{} steps, {} parameters, {} of training, {} tokens/s\n", with_commas(result.steps),
                           with_commas(result.parameters), human_duration(result.training_seconds),
                           with_commas(std::llround(result.tokens_per_second)));
  if (std::isfinite(result.minimum_validation_bpb())) {
    std::cout << fmt::format("validation bpb {:.4f}, at best {:.4f}\n", result.validation_bpb(), result.minimum_validation_bpb());
  }
  if (!result.checkpoint.empty()) std::cout << "checkpoint " << result.checkpoint.string() << '\n';
  if (result.interrupted) {
    std::cout << fmt::format("interrupted; continue with --resume latest --output-dir {}\n", config.output_dir.string());
  }
}

}  // namespace

void add_pretrain(CommandLine& command_line) {
  auto config = std::make_shared<PretrainConfig>();
  auto scores = std::make_shared<ScoreOptions>();
  Subcommand& command = command_line.add(
      "pretrain", "Train a base model from token shards or text",
      "nanochat pretrain --data-dir shards --depth 4 --sequence-len 256 --device-batch-size 16 "
      "--total-batch-size 4096 --num-iterations 1000 --output-dir runs/first");
  declare_pretrain_options(command.options(), *config);
  declare_core_scores(command.options(), *scores);
  command.required("data_dir").required("output_dir");
  command.run([config, scores](Context& context) {
    const PretrainResult result = pretrain(*config, *context.progress, core_scores(*scores));
    if (context.json) {
      print_json(result);
    } else {
      print_text(result, *config);
    }
    return ExitCode::kOk;
  });
}

}  // namespace nanochat::cli
