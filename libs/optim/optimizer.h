#pragma once
// The optimizer of a whole model: Muon for the matrices of the blocks, AdamW for embedding and
// head, each with its own learning rate. Source: setup_optimizers in the reference's gpt.py.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/parameter.h"
#include "optim/adamw.h"
#include "optim/muon.h"

namespace nanochat {

struct OptimizerOptions {
  double embedding_lr = 0.2;      // AdamW; scaled by (width / 768)^-0.5
  double unembedding_lr = 0.004;  // AdamW, for the head; scaled in the same way
  double matrix_lr = 0.02;        // Muon
  AdamWOptions adamw;
  MuonOptions muon;
};

// Keeps references to the model's parameters, which must outlive it. Not thread-safe.
class Optimizer {
 public:
  Optimizer(std::vector<Parameter>& parameters, std::int64_t width, const OptimizerOptions& options);

  // Updates value and compute of every parameter with grad * grad_scale. lr_multiplier scales every learning rate.
  void step(double lr_multiplier, double muon_momentum, double grad_scale);
  std::int64_t steps() const { return steps_; }

  // State by name for a checkpoint: "NAME.exp_avg", "NAME.exp_avg_sq" or "NAME.momentum_buffer". These are the
  // live tensors: loading copies into them. set_steps() restores the step count for AdamW's bias correction.
  std::vector<std::pair<std::string, at::Tensor>> state() const;
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  struct AdamWState {
    Parameter* parameter;
    double learning_rate;
    at::Tensor first_moment, second_moment;
  };
  struct MuonGroup {  // matrices of one shape
    std::vector<std::string> names;
    ops::MatrixList matrices;
    std::vector<Parameter*> parameters;
  };

  OptimizerOptions options_;
  std::vector<AdamWState> adamw_;
  std::vector<MuonGroup> muon_;
  std::int64_t steps_ = 0;
};

}  // namespace nanochat
