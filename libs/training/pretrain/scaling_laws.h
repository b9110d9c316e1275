#pragma once
// The scaling laws of nanochat-2026-07: number of tokens, batch size, learning rates and weight decay from the size of the
// model. Source: scripts/base_train.py of the reference at 92d63d4; the exponent of the batch size is from Power Lines (arXiv
// 2505.13738).

#include <cstdint>

#include "model/config.h"

namespace nanochat {

struct ScalingOptions {
  double target_param_data_ratio = 12.0;  // tokens per weight of scaling_parameters()
  double target_flops = -1.0;  // if positive, it determines the number of steps
  std::int64_t num_iterations = -1;  // if not negative, the number of steps; takes precedence
  std::int64_t total_batch_size = -1;  // tokens in a step; -1: by the scaling law
  double weight_decay = 0.28;  // of the matrices, at depth 12
};

struct ScalingPlan {
  std::int64_t target_tokens = 0, total_batch_size = 0, num_iterations = 0;
  double lr_scale = 1.0;  // factor of all learning rates except that of smear and backout
  double weight_decay = 0.0;  // of the matrices, at the beginning
};

// Weights that multiply every token: matrices and gates of the layers, and the head with its padding.
std::int64_t scaling_parameters(const GptConfig& model);

// depth_12: the model of twelve layers with the same vocabulary and heads, for which the constants were found.
ScalingPlan plan_scaling(const GptConfig& model, const GptConfig& depth_12, const ScalingOptions& options);

}  // namespace nanochat
