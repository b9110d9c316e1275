#pragma once
// The GPT of the reference's gpt.py, in two architectures (config.h). Both: token embedding, RMSNorm, blocks of attention (RoPE,
// QK-norm, grouped queries) and ReLU-squared MLP on a residual stream, RMSNorm, untied head with soft-capped logits.
// nanochat-2026-07 adds smear, value embeddings, sliding windows, scales of the stream and backout: docs/algorithms.md.
//
// Forward and backward are written by hand; there is no autograd graph. A model for training has float32
// master weights and gradients. With compute dtype bfloat16, each weight also has a bf16 copy, which
// matrix products read; the optimizer changes `value` and updates `compute`. A model for inference has
// only the weights in the compute dtype. Not thread-safe: activations are members of the object.
//
// Files: layout.h is the table of all tensors, weights.h holds them, attention_block.h,
// mlp_block.h and residual_stream.h are the network, and gpt.cpp combines them.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/parameter.h"
#include "model/weight_keeper.h"
#include "ops/rope.h"

namespace nanochat {

class KvCache;
class Weights;
struct Sequences;
struct Pass;

// Called with intermediate tensors by name, to find a NaN; see stability.h.
using TensorObserver = std::function<void(const std::string& name, const at::Tensor& tensor)>;

// Called during the backward pass when the gradients of all parameters with this TensorSpec::layer are
// final for this batch: first kAfterLayers, then the layers from the last to the first, then kBeforeLayers.
// On a GPU the gradients may still be computing; work queued on the same stream runs after them.
using GradientsFinal = std::function<void(std::int64_t layer)>;

// Called during the forward pass before parameters with this TensorSpec::layer are read: kBeforeLayers, the layers from the
// first to the last, kAfterLayers.
using WeightsWanted = std::function<void(std::int64_t layer)>;

class Gpt {
 public:
  // Weights are uninitialised until init_weights() or a checkpoint fills them. dtype: at::kFloat or at::kBFloat16.
  // A model of Residency::kShared needs a keeper before anything else, and must not be moved while it has one.
  Gpt(const GptConfig& config, at::ScalarType dtype, at::Device device = at::kCPU, Purpose purpose = Purpose::kTraining,
      Residency residency = Residency::kWhole);
  ~Gpt();
  Gpt(Gpt&&) noexcept;

  const GptConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }
  std::vector<Parameter>& parameters();
  const std::vector<Parameter>& parameters() const;

  // As in the reference. nanochat-2025-12: embedding N(0, 1); matrices N(0, 1/fan_in * min(1, fan_out/fan_in));
  // head and projections back into the residual stream zero. For nanochat-2026-07 see layout.cpp. Drawn in
  // the reference's order from LibTorch's generator: one seed gives the reference's weights on any device.
  void init_weights(std::uint64_t seed);
  // compute := value, after a change of values; also updates the packed copy. No-op in float32.
  void refresh_compute();
  // For inference on CPUs with kernels for packed weights (ops/matrix_product.h): packs
  // a copy once, which forward_states() and logits() then read. Elsewhere a no-op.
  void pack_weights();
  void zero_grad();  // of a model for training
  // Calls `fill` with a float32 tensor (in a model for inference: of the compute type) of the parameter's shape, to be filled
  // with its new values: its own `value`, or a tensor on the CPU that goes to the keeper.
  // refresh_compute() must follow.
  void set_value(Parameter& parameter, const std::function<void(at::Tensor& value)>& fill);
  // Calls `visit` with the master weights that this process has, or with parts of them: see WeightKeeper::visit_values().
  void visit_values(const std::function<void(const std::string& name, const at::Tensor& value)>& visit) const;

  // ids, targets: int32 (B, T), contiguous, on the CPU or on device(); target -1: ignored.
  // Results are on device(), and on a GPU may still be computing. Ids outside the vocabulary are
  // a TORCH_CHECK error. For ids on a GPU, where a check would have to wait, the results are NaN.
  //
  // documents: undefined when a row is one document; else their offsets (cu_seqlens), int32 (S + 1) on the CPU: the first of
  // the B * T positions of each document, and B * T. Every row begins a document. Attention then stays inside each document
  // and positions count from its beginning.
  //
  // float32 losses (B, T) in nats, 0 where ignored.
  at::Tensor token_losses(const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& documents = {});
  // The same, and accumulates gradients of sum(scale * losses) in every grad. scale: float32 (B, T).
  at::Tensor forward_backward(const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& scale,
                              const at::Tensor& documents = {});
  // Soft-capped logits (B, T, vocab_size) float32.
  at::Tensor forward(const at::Tensor& ids);
  // Continues each row of `cache` with ids (B, T) and advances it. Logits (B, vocab_size) of the last position.
  at::Tensor forward_cache(const at::Tensor& ids, KvCache& cache);

  // The two halves of forward_cache, for a batch of which other logits are wanted: normalised states (B * T, C), and soft-
  // capped logits (M, vocab_size) float32 of M states. A cache whose rows are single tokens takes ids (N, 1), wherever
  // in their sequences they stand. batch_invariant: as KvCache::batch_invariant().
  at::Tensor forward_states(const at::Tensor& ids, KvCache& cache);
  at::Tensor logits(const at::Tensor& states, bool batch_invariant = false);

  // Mean over supervised tokens; 0 if there are none.
  double loss(const at::Tensor& ids, const at::Tensor& targets);

  // What an engine leaves with the model for the engine after it, such as recorded passes (inference/device_runner.h).
  struct Kept {
    virtual ~Kept() = default;
  };
  std::shared_ptr<Kept>& kept() { return kept_; }

  // For other parts of this library.
  Weights& weights();
  // The rotary table for at least so many positions. A later call for more makes a new one; the tensors of this one stay.
  const ops::RopeTable& rope_for(std::int64_t positions);

  // Activation recomputation: forward_backward() keeps only the residual stream before each layer, and runs the forward pass of
  // a layer again when the backward pass comes to it. Losses and gradients are the same, bit for bit; memory falls to about
  // one layer's activations, and a step takes about a fifth longer. Off at first.
  void set_recompute(bool recompute) { recompute_ = recompute; }

  // forward_backward() multiplies in 8 bits (ops/fp8.h): the matrices of the layers, where shapes fit. The head, evaluation,
  // checkpoints and the optimizer are not concerned. Needs ops::has_fp8(device()). Off at first.
  void set_fp8(bool fp8);

  // Of a model of Residency::kShared; null where the model has all weights itself.
  void set_keeper(WeightKeeper* keeper) { keeper_ = keeper; }
  WeightKeeper* keeper() const { return keeper_; }

  void set_observer(TensorObserver observer) { observer_ = std::move(observer); }
  // Applies to every later backward pass; an empty function costs nothing.
  void set_gradients_final(GradientsFinal callback) { gradients_final_ = std::move(callback); }
  // Applies to every later forward pass.
  void set_weights_wanted(WeightsWanted callback) { weights_wanted_ = std::move(callback); }

 private:
  struct Activations;  // the buffers of one pass
  struct Network;  // weights, blocks, and the activations of training

  at::TensorOptions options() const;  // of activations
  Sequences sequences(const at::Tensor& ids, const at::Tensor& documents);
  Sequences sequences(const at::Tensor& ids, KvCache& cache);
  Pass make_pass(const at::Tensor& ids, Sequences where) const;
  // What is to be called before weights of a layer are read, and around the computation of its gradients.
  void want_weights(std::int64_t layer, PassDirection direction) const;
  void begin_gradients(std::int64_t layer) const;
  void end_gradients(std::int64_t layer) const;
  // Embedding and blocks: the final normalised (B*T, C).
  const at::Tensor& run(const Pass& pass, Activations& activations) const;
  // Backward pass from the gradient that the head left.
  void run_backward(const Pass& pass, Activations& activations) const;
  // The forward pass of a layer once more, up to what its backward pass needs.
  void run_layer_again(const Pass& pass, std::size_t layer, Activations& activations) const;
  // Checks ids and moves them to the device. `lowest`: 0, or -1 if that means "ignored".
  at::Tensor take_ids(const at::Tensor& ids, std::int32_t lowest) const;

  GptConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  std::unique_ptr<Network> network_;
  ops::RopeTable rope_;
  std::shared_ptr<Kept> kept_;  // may refer to network_
  TensorObserver observer_;
  GradientsFinal gradients_final_;
  WeightsWanted weights_wanted_;
  WeightKeeper* keeper_ = nullptr;
  bool recompute_ = false;
  at::Tensor largest_reading_;  // Pass::largest_reading; undefined without 8 bits
};

// Calls `passes`, which makes forward passes of this model. Where several processes share its weights, all call this together;
// each may make another number of passes. They must not communicate in between, and an exception must end the run.
template <class Passes>
auto uneven_passes(Gpt& model, Passes passes) {
  WeightKeeper* keeper = model.keeper();
  if (keeper != nullptr) keeper->begin_uneven_passes();
  auto result = passes();
  if (keeper != nullptr) keeper->end_uneven_passes();
  return result;
}

}  // namespace nanochat
