#include <iostream>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "command_line.h"
#include "commands.h"
#include "evaluation/completion.h"
#include "training/trainer/runtime.h"

namespace nanochat::cli {
namespace {

struct EvalConfig {
  std::filesystem::path model;
  std::filesystem::path data_dir;
  std::vector<std::string> benchmarks{"completion"};
  RuntimeOptions runtime;
  std::int64_t device_batch_size = 50;
  bool show = false;
};

void print_table(const CompletionResult& result) {
  std::cout << fmt::format("{:<16} {:>8} {:>8} {:>9}\n", "topic", "right", "of", "accuracy");
  for (const auto& [topic, score] : result.by_topic) {
    std::cout << fmt::format("{:<16} {:>8} {:>8} {:>8.1f}%\n", topic.empty() ? "-" : topic, score.correct, score.total,
                             100.0 * score.accuracy());
  }
  std::cout << fmt::format("{:<16} {:>8} {:>8} {:>8.1f}%\n", "all", result.all.correct, result.all.total,
                           100.0 * result.all.accuracy());
}

nlohmann::json to_json(const CompletionResult& result) {
  nlohmann::json topics = nlohmann::json::object();
  for (const auto& [topic, score] : result.by_topic) {
    topics[topic] = {{"correct", score.correct}, {"total", score.total}, {"accuracy", score.accuracy()}};
  }
  return {{"benchmark", "completion"}, {"correct", result.all.correct}, {"total", result.all.total},
          {"accuracy", result.all.accuracy()}, {"topics", topics}};
}

ExitCode evaluate(const EvalConfig& config, Context& context) {
  const Runtime runtime = select_runtime(config.runtime);
  const auto items = read_completion_items(config.data_dir);
  LoadedModel loaded = load_model(config.model, runtime.dtype, runtime.device);
  if (loaded.tokenizer == nullptr) {
    throw CheckpointError(fmt::format("{}: no tokenizer beside the model; `eval` needs one", loaded.folder.string()));
  }
  const CompletionResult result =
      evaluate_completions(*loaded.model, *loaded.tokenizer, items, config.device_batch_size, *context.progress);
  if (config.show && !context.json) {
    for (std::size_t i = 0; i < items.size(); ++i) {
      std::cout << fmt::format("{} {}{}\n", result.correct[i] ? "✓" : "✗", items[i].prompt, result.continuations[i]);
    }
  }
  if (context.json) {
    std::cout << to_json(result).dump() << '\n';
  } else {
    print_table(result);
  }
  return ExitCode::kOk;
}

}  // namespace

void add_eval(CommandLine& command_line) {
  auto config = std::make_shared<EvalConfig>();
  Subcommand& command = command_line.add("eval", "Score a model",
                                         "nanochat eval runs/first --benchmarks completion --data-dir toy/test_prompts.jsonl");
  command.option("model", config->model, "run or checkpoint to score");
  command.positional("model", /*required=*/true);
  command.option("benchmarks", config->benchmarks, "what to score: completion (rows of prompt, answers and topic)")
      .comma_separated()
      .one_of({"completion"});
  command.option("data_dir", config->data_dir, "file with the rows of the benchmark");
  command.required("data_dir");
  declare_runtime_options(command.options(), config->runtime);
  command.option("device_batch_size", config->device_batch_size, "prompts to continue at a time").at_least(1);
  command.option("show", config->show, "print every prompt with its continuation");
  command.run([config](Context& context) { return evaluate(*config, context); });
}

}  // namespace nanochat::cli
