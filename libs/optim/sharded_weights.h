#pragma once
// The weights of a model that several processes divide among them (ZeRO-3: Rajbhandari et al. 2020; FSDP in PyTorch). Each
// process has the master weights, compute copies and gradients of what it owns (ownership.h), as it has the optimizer's state
// of that. The layers of the model share a few buffers (Residency::kShared), which this class fills and empties:
//
//   want(layer)             the owners send the weights of the layer to all. While the layer computes, those of the layer that
//                           the pass comes to next arrive in the other buffer.
//   end_gradients(layer)    the sum of the layer's gradients over all processes goes to the owners, beneath what follows, and
//                           is added to theirs.
//
// Weights that a buffer still has are not sent again: the backward pass begins with the last two layers' there, and the next
// forward pass of a step with the first two layers'.
//
//   Gpt model(config, dtype, device, Purpose::kTraining, Residency::kShared);
//   ShardedWeights shards(model, communicator);
//   Optimizer optimizer(model.parameters(), config.n_embd, options, communicator, &shards);
//
// All processes must make the same passes in the same order. Where one has fewer, follow_pass() takes part in those of the
// others. Not thread-safe.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distributed/communicator.h"
#include "model/gpt.h"
#include "optim/ownership.h"

namespace nanochat {

// Rows of a parameter that this process owns.
struct Shard {
  OwnedRows rows;
  at::Tensor value;    // float32 master weights
  at::Tensor compute;  // `value`, or its copy in the compute type
  at::Tensor grad;     // float32: sums over the micro-batches and processes of a step, once wait_for_gradients() was called
};

class ShardedWeights : public WeightKeeper {
 public:
  // Becomes the model's keeper. Model and communicator must outlive it. gradient_comm_dtype: as in OptimizerOptions.
  ShardedWeights(Gpt& model, Communicator& communicator, at::ScalarType gradient_comm_dtype = at::kFloat);
  ~ShardedWeights() override;
  ShardedWeights(const ShardedWeights&) = delete;
  ShardedWeights& operator=(const ShardedWeights&) = delete;

  // Of a parameter of the model; null if this process owns none of its rows, or if it is not divided.
  Shard* find(const Parameter& parameter);

  // Takes part in a pass of other processes: a forward pass, and its backward pass if it has one.
  void follow_pass(bool backward);
  // Until the gradients of all passes are in the shards.
  void wait_for_gradients();
  // After `value` and `compute` of shards have changed: what the buffers have is out of date. Begins to send what the next
  // forward pass reads first.
  void weights_changed();

  // Name and value of every parameter, of the whole model, in float32 on the CPU: a copy on rank 0, nothing on the others. All
  // must call it, between two steps.
  std::vector<std::pair<std::string, at::Tensor>> gather_values();

  void want(std::int64_t layer, PassDirection direction) override;
  void begin_gradients(std::int64_t layer) override;
  void end_gradients(std::int64_t layer) override;
  void store(const Parameter& parameter, const at::Tensor& whole) override;
  void visit_values(const std::function<void(const std::string&, const at::Tensor&)>& visit) const override;
  void zero_grad() override;
  void begin_uneven_passes() override;
  void end_uneven_passes() override;

 private:
  struct Divided {
    Parameter* parameter;
    std::vector<OwnedRows> parts;
  };
  struct WeightBuffer {
    std::optional<std::int64_t> layer;  // whose weights it has, or will have
    Work arriving;
  };
  struct GradientBuffer {
    Work leaving;
    std::vector<OwnedTensor> sent;  // alive until they have been
    std::vector<std::pair<at::Tensor, Shard*>> owned;  // sums, and where they are to be added
  };
  // Two for layers, which take turns, and one for embedding and head, as Weights has them.
  static std::size_t buffer_of(std::int64_t layer) { return layer < 0 ? 2 : static_cast<std::size_t>(layer % 2); }

  // Calls `visit` for each part of each parameter of a layer, with the shard if it is this process's.
  void for_each_part(std::int64_t layer, const std::function<void(const Divided&, const OwnedRows&, Shard*)>& visit);
  std::optional<std::int64_t> after(std::int64_t layer, PassDirection direction) const;
  void gather(std::int64_t layer);
  void collect(GradientBuffer& buffer);
  void forget_weights();
  bool any_passes_again(bool mine);

  Gpt& model_;
  Communicator& communicator_;
  at::ScalarType gradient_comm_dtype_;
  std::map<std::int64_t, std::vector<Divided>> layers_;
  std::map<const Parameter*, Shard> shards_;
  std::array<WeightBuffer, 3> weights_;
  std::array<GradientBuffer, 3> gradients_;
  bool uneven_ = false;
};

}  // namespace nanochat
