#include <iostream>
#include <optional>

#include <nlohmann/json.hpp>

#include "command_line.h"
#include "commands.h"
#include "plan_report.h"
#include "ranks.h"
#include "training/pretrain/pretrain.h"
#include "training/pretrain/pretrain_options.h"
#include "training/pretrain/pretrain_plan.h"
#include "training_report.h"
#include "training_scores.h"

namespace nanochat::cli {
namespace {

struct PlanArguments {
  bool wanted = false;
  ClusterOptions cluster;
};

ExitCode print_plan(const PretrainConfig& config, const Cluster& cluster, bool as_json) {
  const std::int64_t assumed = config.is_2026() ? 32768 : 65536;  // of the speedrun of that version of the reference
  const std::optional<std::int64_t> vocabulary = planned_vocab_size(config);
  const PretrainPlan plan = plan_pretraining(config, vocabulary.value_or(assumed), config.runtime.device != "cpu", cluster);
  if (as_json) {
    std::cout << pretrain_plan_json(plan, cluster).dump() << '\n';
  } else {
    print_pretrain_plan(plan, cluster, !vocabulary);
  }
  return ExitCode::kOk;
}

}  // namespace

void add_pretrain(CommandLine& command_line) {
  auto config = std::make_shared<PretrainConfig>();
  auto scores = std::make_shared<ScoreOptions>();
  Subcommand& command = command_line.add(
      "pretrain", "Train a base model on token shards or text.",
      "nanochat pretrain --data-dir shards --depth 4 --sequence-len 256 --device-batch-size 16 "
      "--total-batch-size 4096 --num-iterations 1000 --output-dir runs/first");
  declare_pretrain_options(command.options(), *config);
  declare_core_scores(command.options(), *scores);
  auto distributed = std::make_shared<CommunicatorOptions>(communicator_options("pretrain"));
  declare_distributed_options(command.options(), *distributed);
  auto plan = std::make_shared<PlanArguments>();
  command.option("plan", plan->wanted, "Print the expected memory, communication and time, without training.")
      .not_in_resolved();
  declare_cluster_options(command.options(), plan->cluster);
  command.required("data_dir").required("output_dir").unless("plan");
  command.run([config, scores, distributed, plan, &command](Context& context) {
    apply_recipe(command.options(), *config);
    require_plan(command.options(), plan->wanted);
    if (plan->wanted) return print_plan(*config, plan->cluster.cluster(), context.json);
    Ranks ranks(*distributed, config->runtime, shared_configuration(command));
    const PretrainResult result = pretrain(*config, ranks.progress(context),
                                           ranks.is_root() ? core_scores(*scores) : others_scores(*scores),
                                           ranks.communicator());
    if (!ranks.is_root()) return ExitCode::kOk;
    if (context.json) {
      nlohmann::json json = training_json(result, "bpb");
      json["samples"] = result.samples;
      std::cout << json.dump() << '\n';
    } else {
      for (const std::string& sample : result.samples) std::cout << "  " << sample << '\n';
      print_training(result, "bpb", config->output_dir);
    }
    return ExitCode::kOk;
  });
}

}  // namespace nanochat::cli
