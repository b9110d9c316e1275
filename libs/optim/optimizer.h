#pragma once
// The optimizer of a whole model: Muon for the matrices of the blocks, AdamW for the rest, each group with its learning
// rate. Source: setup_optimizers in the reference's gpt.py.
//
// Several processes share its state (ownership.h). Each calls reduce_gradients() for every TensorSpec::layer when the
// gradients of its last micro-batch are final, then wait_for_gradients() and step(). What goes over the network:
//
//   reduce_gradients(layer)   the sum of each gradient over all processes, to the owner; goes on beneath what follows
//   step()                    updates what this process owns, and spreads the new weights in the type that the model
//                             computes with; goes on beneath what follows, until wait_for_weights()
//
// `value` of what others own is then out of date where it is not also what the model computes with (bfloat16): see
// gather_values().
//
// Where weights are sharded too, all of this holds for the few that are not divided. The rest goes through ShardedWeights, in
// every pass.

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
#include "optim/normuon.h"
#include "optim/ownership.h"
#include "optim/sharded_weights.h"

namespace nanochat {

// The version of the reference whose rules apply.
enum class OptimizerRules {
  kNanochat2025_12,  // Muon and one AdamW for embedding and head
  kNanochat2026_07,  // NorMuon, and betas and decays by group
};

struct OptimizerOptions {
  OptimizerRules rules = OptimizerRules::kNanochat2025_12;
  double embedding_lr = 0.2;      // AdamW; scaled by (width / 768)^-0.5
  double unembedding_lr = 0.004;  // AdamW, for the head; scaled in the same way
  double matrix_lr = 0.02;        // Muon
  double scalar_lr = 0.5;  // AdamW, for the scales of the embedding in each layer; a hundredth for the scales of the stream
  double smear_lr = 0.2;  // AdamW, for smear and backout
  AdamWOptions adamw;  // betas and weight decay for kNanochat2025_12; eps for both
  MuonOptions muon;  // for kNanochat2025_12
  NorMuonOptions normuon;  // for kNanochat2026_07
  // Of Muon's momentum and AdamW's moments, but for scales and smear: float32, or bfloat16 for half the memory. Updates are computed
  // in float32 in any case, and the new state is rounded to nearest.
  at::ScalarType state_dtype = at::kFloat;
  at::ScalarType gradient_comm_dtype = at::kFloat;  // between processes; in bfloat16, sums are rounded after each process
};

// The learning rate and the other options of AdamW for a group without matrices. The width is that of the model.
struct AdamWRule {
  double learning_rate = 0.0;
  AdamWOptions options;
};
AdamWRule adamw_rule(const OptimizerOptions& options, OptimizerGroup group, std::int64_t width);

// Keeps references to the model's parameters, to the communicator and to `shards`, which must outlive it. Not thread-safe.
class Optimizer {
 public:
  Optimizer(std::vector<Parameter>& parameters, std::int64_t width, const OptimizerOptions& options,
            Communicator& communicator = alone(), ShardedWeights* shards = nullptr);

  Communicator& communicator() const { return communicator_; }
  ShardedWeights* shards() const { return shards_; }  // null where every process has all weights

  // No-ops with one process. Do not use gradients of this TensorSpec::layer between the two calls.
  void reduce_gradients(std::int64_t layer);
  // reduce_gradients() for all layers, in the order of a backward pass. For a process without a micro-batch.
  void reduce_all_gradients();
  void wait_for_gradients();
  // Sum of squares of the gradients that this process updates, in double. Call it after wait_for_gradients(). Not finite if any
  // element is not finite.
  double sum_of_squares() const;

  // Updates value and compute of every parameter with grad * grad_scale. lr_multiplier scales every learning rate.
  // muon_weight_decay: of the matrices; only for kNanochat2026_07. Of several processes, call wait_for_weights() before weights
  // are read.
  void step(double lr_multiplier, double muon_momentum, double grad_scale, double muon_weight_decay = 0.0);
  std::int64_t steps() const { return steps_; }

  // Until the new weights of these parameters are here: those with this TensorSpec::layer, or all. No-ops when alone, and where
  // nothing is under way. On a GPU the current stream waits.
  void wait_for_weights(std::int64_t layer);
  void wait_for_weights();

  // Sends `value` of every parameter from its owner to all processes. All must call it. A no-op with one process or in float32.
  void gather_values();

  // State of the tensors that this process owns, by name for a checkpoint: "NAME.exp_avg", "NAME.exp_avg_sq",
  // "NAME.momentum_buffer" or "NAME.second_momentum_buffer". The tensors are the live ones: loading copies into them.
  // set_steps() restores the count that corrects AdamW's bias.
  std::vector<std::pair<std::string, at::Tensor>> state() const;
  // For each tensor of state(): the row of the whole parameter that it begins with.
  std::vector<std::int64_t> state_first_rows() const;
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  // What this process updates of a parameter.
  struct Owned {
    Parameter* parameter;
    OwnedRows rows;
    Shard* shard = nullptr;  // null: rows of the parameter's own tensors

    at::Tensor value() const { return of(parameter->value, &Shard::value); }
    at::Tensor compute() const { return of(parameter->compute, &Shard::compute); }
    at::Tensor grad() const;  // throws if there is none

   private:
    at::Tensor of(const at::Tensor& whole, at::Tensor Shard::*part) const;
  };
  struct AdamWState {
    Owned owned;
    AdamWRule rule;
    at::Tensor first_moment, second_moment;
  };
  struct MuonGroup {  // matrices of one shape
    std::vector<std::string> names;
    ops::MatrixList matrices;
    std::vector<at::Tensor> second_moments;  // of kNanochat2026_07
    std::vector<Owned> owned;
  };
  struct Divided {
    Parameter* parameter;
    std::vector<OwnedRows> parts;
  };

  struct Reduction {
    Work work;
    std::vector<OwnedTensor> parts;  // alive until they have been sent
    std::vector<std::pair<at::Tensor, at::Tensor>> owned;  // what arrives in another type, and where it is to go
  };

  void own(Parameter& parameter, const OwnedRows& rows, std::int64_t width);
  void update_adamw(AdamWState& state, double lr_multiplier, double grad_scale);
  void update_matrices(MuonGroup& group, const NorMuonStep& step);
  // The parts of some tensor of these parameters with their owners.
  static std::vector<OwnedTensor> parts_of(const std::vector<Divided>& parameters, at::Tensor Parameter::*which);

  OptimizerOptions options_;
  Communicator& communicator_;
  ShardedWeights* shards_;
  std::vector<AdamWState> adamw_;
  std::vector<MuonGroup> muon_;
  std::map<std::int64_t, std::vector<Divided>> layers_;  // what every process has a copy of; empty when alone
  std::vector<Reduction> reductions_;
  std::map<std::int64_t, Work> weights_;  // under way
  std::int64_t steps_ = 0;
};

}  // namespace nanochat
