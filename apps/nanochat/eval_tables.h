#pragma once
// An evaluation as people read it on a terminal.

#include <string>
#include <utility>
#include <vector>

#include "evaluation/task_result.h"

namespace nanochat::cli {

// Earlier evaluations to compare with, and what to call them.
using Compared = std::vector<std::pair<std::string, EvaluationResult>>;

// A row a task: figure, standard error, centred value and what the compared ones have; CORE beside GPT-2's published
// figures; ChatCORE; notes and errors below.
std::string evaluation_table(const EvaluationResult& evaluation, const Compared& compared);

}  // namespace nanochat::cli
