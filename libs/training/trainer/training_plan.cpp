#include "training/trainer/training_plan.h"

#include <algorithm>
#include <array>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/options.h"

namespace nanochat {
namespace {

constexpr std::array<const char*, 6> kNames = {"world_size",    "ranks_per_node", "link_speed",
                                               "network_speed", "hop_latency",    "flops_per_second"};

}  // namespace

Cluster ClusterOptions::cluster() const {
  constexpr double kGiga = 1e9, kMicro = 1e-6;
  return {.ranks = static_cast<int>(world_size),
          .ranks_per_node = static_cast<int>(ranks_per_node),
          .link_bytes_per_second = kGiga * link_speed,
          .network_bytes_per_second = kGiga * network_speed,
          .hop_seconds = kMicro * hop_latency,
          .flops_per_second = flops_per_second};
}

void declare_cluster_options(OptionList& options, ClusterOptions& config) {
  options
      .add("world_size", config.world_size,
           "For --plan: number of processes, each with a device of its own. To train with several, use nanochat launch.")
      .at_least(1)
      .at_most(1 << 20)
      .not_in_resolved();
  options.add("ranks_per_node", config.ranks_per_node, "For --plan: number of processes on one machine.")
      .at_least(1)
      .at_most(1 << 20)
      .not_in_resolved();
  options
      .add("link_speed", config.link_speed,
           "For --plan: data rate between two devices of one machine in each direction, in GB/s (10^9 bytes a second).")
      .at_least(1e-6)
      .not_in_resolved();
  options
      .add("network_speed", config.network_speed,
           "For --plan: data rate between one machine and the others in each direction, in GB/s.")
      .at_least(1e-6)
      .not_in_resolved();
  options.add("hop_latency", config.hop_latency, "For --plan: latency from one device to the next, in microseconds.")
      .at_least(0)
      .not_in_resolved();
  options
      .add("flops_per_second", config.flops_per_second,
           "For --plan: floating-point operations per second that training reaches on one device; 0 leaves the time open. "
           "`nanochat bench train` measures the MFU and the peak rate, whose product this is.")
      .at_least(0)
      .not_in_resolved();
}

void require_plan(OptionList& options, bool plan) {
  for (const char* name : kNames) {
    const Option* option = options.find(name);
    if (!plan && option != nullptr && option->source() != "default" && option->source() != "environment") {
      throw ConfigError(fmt::format("{} belongs to --plan; to train with several processes, use `nanochat launch`",
                                    option->flag()));
    }
  }
}

TrainingPlan plan_training(const GptConfig& model, const TrainingShape& shape, const Cluster& cluster, std::int64_t steps,
                           double tokens) {
  TrainingPlan plan;
  plan.memory = estimate_rank_memory(model, shape, cluster.ranks);
  const std::int64_t local = std::min(cluster.ranks, cluster.ranks_per_node);
  // On GPUs, the copies from which checkpoints are written: rank 0's of the weights, and each rank's of its optimizer state.
  plan.host_memory = shape.gpu ? 4 * model.parameter_count() + local * plan.memory.optimizer : local * plan.memory.total();
  plan.traffic = step_traffic(model, shape, cluster, tokens / cluster.ranks);
  plan.step = estimate_step_time(model, shape, cluster, tokens / cluster.ranks);
  if (plan.step.compute > 0.0) {
    plan.seconds = static_cast<double>(steps) * plan.step.total();
    plan.efficiency = plan.step.compute / plan.step.total();
  }
  return plan;
}

}  // namespace nanochat
