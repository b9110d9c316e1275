#pragma once
// Finding where a NaN or Inf came from. A training step looks at its loss and its gradient norm, which any bad number
// reaches; only when one is bad is the step run again under observation to name the first layer and tensor.

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace nanochat {

class Gpt;

// "layer 3: mlp has 12 NaN of 32768 values", for the first tensor that is not finite when the forward and backward pass
// of this batch is run again, in the order of computation: weights, activations, losses, gradients. nullopt when all
// are finite. Leaves gradients zero.
std::optional<std::string> find_non_finite(Gpt& model, const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& scale,
                                           const at::Tensor& documents = {});

// "NAME has 3 NaN and 1 Inf of 4096 values", or nullopt when every value is finite.
std::optional<std::string> describe_non_finite(const std::string& name, const at::Tensor& tensor);

}  // namespace nanochat
