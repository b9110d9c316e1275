#pragma once
// What --plan prints of a training.

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "training/pretrain/pretrain_plan.h"

namespace nanochat::cli {

nlohmann::json pretrain_plan_json(const PretrainPlan& plan, const Cluster& cluster);
void print_pretrain_plan(const PretrainPlan& plan, const Cluster& cluster, bool vocabulary_assumed);

// What the figures of memory leave out.
std::string memory_remark(const Cluster& cluster, bool gpu);

}  // namespace nanochat::cli
