#pragma once
// What each step of a chain will take, before it is run: parameters, tokens, memory, time, disk.
//
// Numbers that only the data would tell are taken from "plan" of a step: "bytes" of text, "tokens" that they make,
// "conversations". Time is floating-point operations (GptConfig::flops_per_token) over the chain's flops_per_second.

#include <cstdint>
#include <string>
#include <vector>

#include "training/chain/chain.h"

namespace nanochat {

struct StepPlan {
  std::string name, command;
  std::int64_t parameters = 0;  // of the model that is trained; 0: none is
  std::int64_t steps = 0;       // of the optimizer
  std::int64_t tokens = 0;      // trained on, or prepared; RL: of questions and answers
  std::int64_t memory = 0;      // bytes, of the device that trains
  std::int64_t disk = 0;        // bytes that stay
  double seconds = 0.0;         // 0: unknown, or next to nothing
};

// Throws ConfigError for options that a command does not have, and as the commands for those that do not fit together.
std::vector<StepPlan> plan_chain(const Chain& chain);

}  // namespace nanochat
