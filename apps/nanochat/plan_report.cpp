#include "plan_report.h"

#include <algorithm>
#include <iostream>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/format.h"

namespace nanochat::cli {
namespace {

std::string bytes(std::int64_t amount) { return human_bytes(static_cast<double>(amount)); }
std::string milliseconds(double seconds) { return fmt::format("{:.1f} ms", 1e3 * seconds); }

}  // namespace

nlohmann::json pretrain_plan_json(const PretrainPlan& plan, const Cluster& cluster) {
  const TrainingPlan& training = plan.training;
  return {{"world_size", cluster.ranks},
          {"parameters", plan.model.parameter_count()},
          {"vocab_size", plan.model.vocab_size},
          {"steps", plan.steps},
          {"tokens", plan.steps * plan.total_batch_size},
          {"device_batch_size", plan.shape.device_batch_size},
          {"grad_accum_steps", plan.grad_accum_steps},
          {"memory_bytes", training.memory.total()},
          {"memory",
           {{"weights", training.memory.weights},
            {"gradients", training.memory.gradients},
            {"optimizer", training.memory.optimizer},
            {"activations", training.memory.activations}}},
          {"host_memory_bytes", training.host_memory},
          {"sent_bytes", training.traffic.total()},
          {"gradient_seconds", training.step.gradients},
          {"exposed_gradient_seconds", training.step.exposed_gradients},
          {"weight_seconds", training.step.weights},
          {"exposed_weight_seconds", training.step.exposed_weights},
          {"compute_seconds", training.step.compute},
          {"step_seconds", training.step.total()},
          {"seconds", training.seconds},
          {"efficiency", training.efficiency}};
}

std::string memory_remark(const Cluster& cluster, bool gpu) {
  const int local = std::min(cluster.ranks, cluster.ranks_per_node);
  if (local == 1) return "memory is that of one process, alone on its device";
  return fmt::format(
      "memory is that of one process, alone on its device; the {} processes of one machine share its host memory{}", local,
      gpu ? ", of which they need the given amount for the copies from which checkpoints are written"
          : ", and need the given amount of it together");
}

void print_pretrain_plan(const PretrainPlan& plan, const Cluster& cluster, bool vocabulary_assumed) {
  const TrainingPlan& training = plan.training;
  const MemoryEstimate& memory = training.memory;
  const StepTime& step = training.step;
  std::cout << fmt::format("model: depth {}, width {}, vocabulary {}{}, {} parameters\n", plan.model.n_layer, plan.model.n_embd,
                           with_commas(plan.model.vocab_size),
                           vocabulary_assumed ? " (assumed: neither --tokenizer nor --data-dir is given)" : "",
                           with_commas(plan.model.parameter_count()));
  std::cout << fmt::format(
      "training: {} steps of {} tokens, {} tokens in all; each of {} processes has a {} and computes {} micro-batches of {} x "
      "{} "
      "in {}{}\n",
      with_commas(plan.steps), with_commas(plan.total_batch_size), with_commas(plan.steps * plan.total_batch_size),
      cluster.ranks, plan.shape.gpu ? "GPU" : "share of the CPUs", plan.grad_accum_steps, plan.shape.device_batch_size,
      plan.shape.sequence_len, plan.shape.compute_bytes == 4 ? "float32" : "bfloat16",
      std::string(plan.shape.fp8 ? ", with products in 8 bits" : "") + (plan.shape.recompute ? ", with recomputation" : ""));
  if (plan.shape.shard_weights && cluster.ranks > 1) {
    std::cout << "sharding: weights, gradients and optimizer state (--shard full)\n";
  }
  std::cout << fmt::format("memory: {}: weights {}, gradients {}, optimizer {}, activations {}; host memory of a machine {}\n",
                           bytes(memory.total()), bytes(memory.weights), bytes(memory.gradients), bytes(memory.optimizer),
                           bytes(memory.activations), bytes(training.host_memory));
  std::cout << "  " << memory_remark(cluster, plan.shape.gpu) << '\n';
  if (cluster.ranks > 1) {
    std::cout << fmt::format(
        "communication: {} sent by each process in a step; gradients in {}, weights in {}; {} are not beneath the "
        "backward pass, {} not beneath the forward pass\n",
        bytes(training.traffic.total()), milliseconds(step.gradients), milliseconds(step.weights),
        milliseconds(step.exposed_gradients), milliseconds(step.exposed_weights));
  }
  if (training.seconds > 0.0) {
    std::cout << fmt::format("time: {} a step, {} in all", milliseconds(step.total()), human_duration(training.seconds));
    if (cluster.ranks > 1) std::cout << fmt::format("; {:.1f} % of it computing", 100.0 * training.efficiency);
    std::cout << '\n';
  } else {
    std::cout << "time: unknown; --flops-per-second gives it\n";
  }
}

}  // namespace nanochat::cli
