#pragma once
// The optimizer of a whole model: Muon for the matrices of the blocks, AdamW for embedding and head, each with its
// learning rate. Source: setup_optimizers in the reference's gpt.py.
//
// Several processes share its state (ownership.h). Each calls reduce_gradients() for every TensorSpec::layer when the
// gradients of its last micro-batch are final, then wait_for_gradients() and step(). What goes over the network:
//
//   reduce_gradients(layer)   the sum of each gradient over all processes, to the owner; goes on beneath what follows
//   step()                    updates what this process owns, and spreads the new weights in the type that the model
//                             computes with
//
// `value` of what others own is then out of date where it is not also what the model computes with (bfloat16): see
// gather_values().

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "distributed/communicator.h"
#include "model/parameter.h"
#include "optim/adamw.h"
#include "optim/muon.h"
#include "optim/ownership.h"

namespace nanochat {

struct OptimizerOptions {
  double embedding_lr = 0.2;      // AdamW; scaled by (width / 768)^-0.5
  double unembedding_lr = 0.004;  // AdamW, for the head; scaled in the same way
  double matrix_lr = 0.02;        // Muon
  AdamWOptions adamw;
  MuonOptions muon;
};

// Keeps references to the model's parameters and to the communicator, which must outlive it. Not thread-safe.
class Optimizer {
 public:
  Optimizer(std::vector<Parameter>& parameters, std::int64_t width, const OptimizerOptions& options,
            Communicator& communicator = alone());

  Communicator& communicator() const { return communicator_; }

  // No-ops when alone. The gradients of parameters with this TensorSpec::layer are not to be touched between.
  void reduce_gradients(std::int64_t layer);
  // All of them, in the order of a backward pass; for a process that has no micro-batch.
  void reduce_all_gradients();
  void wait_for_gradients();
  // Over the gradients that this process updates, after wait_for_gradients(); accumulated in double. Not finite if any
  // element is not.
  double sum_of_squares() const;

  // Updates value and compute of every parameter with grad * grad_scale. lr_multiplier scales every learning rate.
  void step(double lr_multiplier, double muon_momentum, double grad_scale);
  std::int64_t steps() const { return steps_; }

  // The owners' `value` of every parameter to all. All processes call it; a no-op when alone or in float32.
  void gather_values();

  // State of what this process owns, by name for a checkpoint: "NAME.exp_avg", "NAME.exp_avg_sq" or
  // "NAME.momentum_buffer". The tensors are the live ones: loading copies into them. set_steps() restores the count that
  // corrects AdamW's bias.
  std::vector<std::pair<std::string, at::Tensor>> state() const;
  // For each of these tensors the row of the whole parameter's that it begins with.
  std::vector<std::int64_t> state_first_rows() const;
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  struct AdamWState {
    Parameter* parameter;
    OwnedRows rows;
    double learning_rate;
    at::Tensor first_moment, second_moment;
  };
  struct MuonGroup {  // matrices of one shape
    std::vector<std::string> names;
    ops::MatrixList matrices;
    std::vector<Parameter*> parameters;
  };
  struct Divided {
    Parameter* parameter;
    std::vector<OwnedRows> parts;
  };

  void own(Parameter& parameter, const OwnedRows& rows, double width_scale);
  void update_adamw(AdamWState& state, double lr_multiplier, double grad_scale);
  void update_muon(MuonGroup& group, double lr_multiplier, double muon_momentum, double grad_scale);
  // The parts of some tensor of these parameters with their owners.
  static std::vector<OwnedTensor> parts_of(const std::vector<Divided>& parameters, at::Tensor Parameter::* which);

  OptimizerOptions options_;
  Communicator& communicator_;
  std::vector<AdamWState> adamw_;
  std::vector<MuonGroup> muon_;
  std::map<std::int64_t, std::vector<Divided>> layers_;  // empty when alone
  std::vector<Work> reductions_;
  std::int64_t steps_ = 0;
};

}  // namespace nanochat
