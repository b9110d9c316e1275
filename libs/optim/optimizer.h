#pragma once
// The optimizer of a whole model: Muon for the matrices of the blocks, AdamW for the rest, each group with its learning rate.
// Source: setup_optimizers in the reference's gpt.py.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/parameter.h"
#include "optim/adamw.h"
#include "optim/muon.h"
#include "optim/normuon.h"

namespace nanochat {

// The rules of a version of the reference.
enum class OptimizerRules {
  kNanochat2025_12,  // Muon and one AdamW for embedding and head
  kNanochat2026_07,  // NorMuon, and betas and decays by group
};

struct OptimizerOptions {
  OptimizerRules rules = OptimizerRules::kNanochat2025_12;
  double embedding_lr = 0.2;      // AdamW; scaled by (width / 768)^-0.5
  double unembedding_lr = 0.004;  // AdamW, of the head; scaled likewise
  double matrix_lr = 0.02;        // Muon
  double scalar_lr = 0.5;         // AdamW, of the share of the embedding in each layer; of the scale of the stream a hundredth
  double smear_lr = 0.2;          // AdamW, of smear and backout
  AdamWOptions adamw;             // betas and decay of kNanochat2025_12; eps of both
  MuonOptions muon;               // of kNanochat2025_12
  NorMuonOptions normuon;         // of kNanochat2026_07
};

// How AdamW treats a group that is not of matrices.
struct AdamWRule {
  double learning_rate = 0.0;
  AdamWOptions options;
};
AdamWRule adamw_rule(const OptimizerOptions& options, OptimizerGroup group, std::int64_t width);

// Keeps references to the model's parameters, which must outlive it. Not thread-safe.
class Optimizer {
 public:
  Optimizer(std::vector<Parameter>& parameters, std::int64_t width, const OptimizerOptions& options);

  // Updates value and compute of every parameter from grad * grad_scale. lr_multiplier scales every learning rate.
  // muon_weight_decay: of kNanochat2026_07 alone.
  void step(double lr_multiplier, double muon_momentum, double grad_scale, double muon_weight_decay = 0.0);
  std::int64_t steps() const { return steps_; }

  // State by name for a checkpoint: "NAME.exp_avg", "NAME.exp_avg_sq", "NAME.momentum_buffer" or
  // "NAME.second_momentum_buffer". The tensors are the
  // live ones: loading copies into them. set_steps() restores the count that corrects AdamW's bias.
  std::vector<std::pair<std::string, at::Tensor>> state() const;
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  struct AdamWState {
    Parameter* parameter;
    AdamWRule rule;
    at::Tensor first_moment, second_moment;
  };
  struct MuonGroup {  // matrices of one shape
    std::vector<std::string> names;
    ops::MatrixList matrices;
    std::vector<at::Tensor> second_moments;  // of kNanochat2026_07
    std::vector<Parameter*> parameters;
  };

  OptimizerOptions options_;
  std::vector<AdamWState> adamw_;
  std::vector<MuonGroup> muon_;
  std::int64_t steps_ = 0;
};

}  // namespace nanochat
