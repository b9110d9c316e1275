#pragma once
// Where a model for training has its weights, and the interface to whoever keeps them when the model itself does not (fully
// sharded weights: optim/sharded_weights.h).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "model/parameter.h"

namespace nanochat {

enum class Residency {
  kWhole,  // the model has every weight, its master weight and its gradient
  // The model has buffers that its layers share, and a WeightKeeper fills and empties them. Layers take turns in two buffers, so
  // that one can arrive while the other computes; embedding and head share a third. The same holds for gradients. Weights that
  // are not divided (is_divided() in layout.h) are whole.
  kShared,
};

enum class PassDirection { kForward, kBackward };

// Keeps the divided weights of a model of Residency::kShared. Gpt calls it in each pass. `layer` is a TensorSpec::layer.
//
//   forward pass    want(kBeforeLayers), want(0), …, want(n_layer - 1), want(kAfterLayers)
//   backward pass   begin_gradients(kAfterLayers), which is before the losses; end_gradients(kAfterLayers);
//                   then, from the last layer to the first, want, begin_gradients, end_gradients;
//                   begin_gradients(kBeforeLayers), end_gradients(kBeforeLayers)
class WeightKeeper {
 public:
  virtual ~WeightKeeper() = default;

  // When it returns, Parameter::compute of this layer has the weights; on a GPU, for work queued on the current stream.
  virtual void want(std::int64_t layer, PassDirection direction) = 0;
  // When it returns, Parameter::grad of this layer is zero.
  virtual void begin_gradients(std::int64_t layer) = 0;
  // Parameter::grad of this layer has the gradients of this pass.
  virtual void end_gradients(std::int64_t layer) = 0;

  // Takes new values of a divided parameter. whole: float32, of the parameter's shape, on the CPU.
  virtual void store(const Parameter& parameter, const at::Tensor& whole) = 0;
  // Master weights that are here, each as (name of the parameter, a part of its rows).
  virtual void visit_values(const std::function<void(const std::string& name, const at::Tensor& value)>& visit) const = 0;
  // Zeroes the gradients that have been collected.
  virtual void zero_grad() = 0;

  // Between the two calls, the processes that share the weights may make different numbers of forward passes.
  // end_uneven_passes() takes part in the passes of the others until all processes have called it.
  virtual void begin_uneven_passes() = 0;
  virtual void end_uneven_passes() = 0;
};

}  // namespace nanochat
