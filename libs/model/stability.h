#pragma once
// Finds the origin of a NaN or Inf. A training step checks its loss and gradient norm, which any bad number
// reaches. Only if one of them is bad, the step runs again under observation to name the first layer and tensor.

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace nanochat {

class Gpt;

// "layer 3: mlp has 12 NaN of 32768 values" for the first tensor that is not finite when
// this batch's forward and backward pass runs again, in the order of computation: weights,
// activations, losses, gradients. nullopt if all are finite. Leaves gradients zero.
std::optional<std::string> find_non_finite(Gpt& model, const at::Tensor& ids, const at::Tensor& targets,
                                           const at::Tensor& scale, const at::Tensor& documents = {});
// The two halves of it, for processes that share the weights of a model: each looks at the weights that it has, and then all
// make the pass together, or none does.
std::optional<std::string> find_non_finite_weight(const Gpt& model);
std::optional<std::string> find_non_finite_in_pass(Gpt& model, const at::Tensor& ids, const at::Tensor& targets,
                                                   const at::Tensor& scale, const at::Tensor& documents = {});

// "NAME has 3 NaN and 1 Inf of 4096 values", or nullopt if every value is finite.
std::optional<std::string> describe_non_finite(const std::string& name, const at::Tensor& tensor);

}  // namespace nanochat
