#include "optim/optimizer.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace nanochat {

Optimizer::Optimizer(std::vector<Parameter>& parameters, std::int64_t width, const OptimizerOptions& options)
    : options_(options) {
  const double width_scale = 1.0 / std::sqrt(static_cast<double>(width) / 768.0);
  for (Parameter& parameter : parameters) {
    const auto zeros = [&] { return at::zeros(parameter.value.sizes(), parameter.value.options()); };
    if (parameter.spec.group != OptimizerGroup::kMatrix) {
      const bool embedding = parameter.spec.group == OptimizerGroup::kEmbedding;
      const double rate = embedding ? options.embedding_lr : options.unembedding_lr;
      adamw_.push_back({&parameter, rate * width_scale, zeros(), zeros()});
      continue;
    }
    auto group = std::find_if(muon_.begin(), muon_.end(),
                              [&](const MuonGroup& g) { return g.matrices.value.front().sizes() == parameter.value.sizes(); });
    if (group == muon_.end()) group = muon_.emplace(muon_.end());
    group->names.push_back(parameter.name);
    group->matrices.add(parameter.value, at::Tensor(), zeros(), parameter.compute);
    group->parameters.push_back(&parameter);
  }
}

void Optimizer::step(double lr_multiplier, double muon_momentum, double grad_scale) {
  ++steps_;
  for (AdamWState& state : adamw_) {
    Parameter& parameter = *state.parameter;
    TORCH_CHECK(parameter.grad.defined(), "Optimizer: ", parameter.name, " has no gradient");
    adamw_step(parameter.value, parameter.grad, state.first_moment, state.second_moment, parameter.compute, steps_,
               state.learning_rate * lr_multiplier, grad_scale, options_.adamw);
  }
  for (MuonGroup& group : muon_) {
    for (std::size_t i = 0; i < group.names.size(); ++i) {
      TORCH_CHECK(group.parameters[i]->grad.defined(), "Optimizer: ", group.names[i], " has no gradient");
      group.matrices.gradient[i] = group.parameters[i]->grad;
    }
    muon_step(group.matrices, options_.matrix_lr * lr_multiplier, muon_momentum, grad_scale, options_.muon);
  }
}

std::vector<std::pair<std::string, at::Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const AdamWState& state : adamw_) {
    tensors.emplace_back(state.parameter->name + ".exp_avg", state.first_moment);
    tensors.emplace_back(state.parameter->name + ".exp_avg_sq", state.second_moment);
  }
  for (const MuonGroup& group : muon_) {
    for (std::size_t i = 0; i < group.names.size(); ++i) {
      tensors.emplace_back(group.names[i] + ".momentum_buffer", group.matrices.momentum[i]);
    }
  }
  return tensors;
}

}  // namespace nanochat
