#pragma once
// Estimates for each step of a chain before it runs: parameters, tokens, memory, time, disk space.
//
// Numbers that depend on the data are taken from "plan" of a step: "bytes" of text, "tokens" in it, "conversations".
// Time is floating-point operations (GptConfig::flops_per_token) divided by flops_per_second of the devices, and what
// communication adds where several processes train (training/trainer/training_plan.h).

#include <cstdint>
#include <string>
#include <vector>

#include "optim/rank_plan.h"
#include "training/chain/chain.h"

namespace nanochat {

struct StepPlan {
  std::string name, command;
  std::int64_t parameters = 0;  // of the trained model; 0: none
  std::int64_t steps = 0;       // optimizer steps
  std::int64_t tokens = 0;      // trained or prepared tokens; RL: of questions and answers
  std::int64_t memory = 0;      // bytes, on each device that trains
  std::int64_t host_memory = 0;  // bytes, of all processes of one machine together
  std::int64_t sent = 0;        // bytes that each process sends in a step
  double communication_seconds = 0.0;  // of a step, also what goes on beneath the backward pass
  std::int64_t disk = 0;        // bytes that are kept
  double seconds = 0.0;         // 0: unknown or negligible
};

// Training steps are planned for the processes of `cluster`, all others for one. A flops_per_second of 0 stands for the chain's.
// Throws ConfigError for unknown options, and like the commands for options that do not fit together.
std::vector<StepPlan> plan_chain(const Chain& chain, Cluster cluster = {});

}  // namespace nanochat
