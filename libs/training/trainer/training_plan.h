#pragma once
// What a training will take, before it begins: memory, communication and time, on one device or on many. The formulas are those
// of optim/rank_plan.h.

#include <cstdint>

#include "optim/rank_plan.h"

namespace nanochat {

class OptionList;

// What --plan is told of the machines that are to train.
struct ClusterOptions {
  std::int64_t world_size = 1, ranks_per_node = 8;
  double link_speed = 300.0, network_speed = 50.0;  // 1e9 bytes a second
  double hop_latency = 5.0;  // microseconds
  double flops_per_second = 0.0;  // of one device; 0: unknown

  Cluster cluster() const;
};
// --world-size and what follows it. Of the invocation, not of the run.
void declare_cluster_options(OptionList& options, ClusterOptions& config);
// Throws ConfigError if one of these was given, though `plan` is not set.
void require_plan(OptionList& options, bool plan);

struct TrainingPlan {
  MemoryEstimate memory;  // of a rank, alone on its device
  std::int64_t host_memory = 0;  // of all ranks of one machine together
  StepTraffic traffic;  // of a rank in a step
  StepTime step;
  double seconds = 0.0;  // of all steps; 0: unknown
  double efficiency = 1.0;  // of the time of a step, the part that is computing
};

// Of `steps` optimizer steps, each of `tokens` for all ranks together.
TrainingPlan plan_training(const GptConfig& model, const TrainingShape& shape, const Cluster& cluster, std::int64_t steps,
                           double tokens);

}  // namespace nanochat
