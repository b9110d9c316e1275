#include "optim/optimizer.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace nanochat {

AdamWRule adamw_rule(const OptimizerOptions& options, OptimizerGroup group, std::int64_t width) {
  const double width_scale = 1.0 / std::sqrt(static_cast<double>(width) / 768.0);
  if (options.rules == OptimizerRules::kNanochat2025_12) {
    TORCH_CHECK(group == OptimizerGroup::kEmbedding || group == OptimizerGroup::kHead,
                "Optimizer: the rules of nanochat-2025-12 have none for the parts of nanochat-2026-07");
    return {(group == OptimizerGroup::kEmbedding ? options.embedding_lr : options.unembedding_lr) * width_scale, options.adamw};
  }
  const auto rule = [&](double rate, double beta1, double beta2, double decay) {
    return AdamWRule{rate, {.beta1 = beta1, .beta2 = beta2, .eps = options.adamw.eps, .weight_decay = decay}};
  };
  switch (group) {
    case OptimizerGroup::kHead: return rule(options.unembedding_lr * width_scale, 0.8, 0.96, 0.01);
    case OptimizerGroup::kEmbedding: return rule(options.embedding_lr * width_scale, 0.8, 0.995, 0.001);
    case OptimizerGroup::kValueEmbedding: return rule(options.embedding_lr * width_scale * 0.5, 0.8, 0.995, 0.01);
    case OptimizerGroup::kResidualScale: return rule(options.scalar_lr * 0.01, 0.8, 0.95, 0.05);
    case OptimizerGroup::kEmbeddingScale: return rule(options.scalar_lr, 0.96, 0.95, 0.0);
    case OptimizerGroup::kSmear: return rule(options.smear_lr, 0.8, 0.95, 0.0);
    case OptimizerGroup::kMatrix: break;
  }
  TORCH_CHECK(false, "Optimizer: matrices are Muon's");
}

Optimizer::Optimizer(std::vector<Parameter>& parameters, std::int64_t width, const OptimizerOptions& options)
    : options_(options) {
  for (Parameter& parameter : parameters) {
    const auto zeros = [&] { return at::zeros(parameter.value.sizes(), parameter.value.options()); };
    if (parameter.spec.group != OptimizerGroup::kMatrix) {
      adamw_.push_back({&parameter, adamw_rule(options, parameter.spec.group, width), zeros(), zeros()});
      continue;
    }
    auto group = std::find_if(muon_.begin(), muon_.end(), [&](const MuonGroup& g) {
      return g.matrices.value.front().sizes() == parameter.value.sizes();
    });
    if (group == muon_.end()) group = muon_.emplace(muon_.end());
    group->names.push_back(parameter.name);
    group->matrices.add(parameter.value, at::Tensor(), zeros(), parameter.compute);
    group->parameters.push_back(&parameter);
    if (options.rules == OptimizerRules::kNanochat2026_07) group->second_moments.push_back(make_second_moment(parameter.value));
  }
}

void Optimizer::step(double lr_multiplier, double muon_momentum, double grad_scale, double muon_weight_decay) {
  ++steps_;
  for (AdamWState& state : adamw_) {
    Parameter& parameter = *state.parameter;
    TORCH_CHECK(parameter.grad.defined(), "Optimizer: ", parameter.name, " has no gradient");
    adamw_step(parameter.value, parameter.grad, state.first_moment, state.second_moment, parameter.compute, steps_,
               state.rule.learning_rate * lr_multiplier, grad_scale, state.rule.options);
  }
  for (MuonGroup& group : muon_) {
    for (std::size_t i = 0; i < group.names.size(); ++i) {
      TORCH_CHECK(group.parameters[i]->grad.defined(), "Optimizer: ", group.names[i], " has no gradient");
      group.matrices.gradient[i] = group.parameters[i]->grad;
    }
    const double rate = options_.matrix_lr * lr_multiplier;
    if (options_.rules == OptimizerRules::kNanochat2025_12) {
      muon_step(group.matrices, rate, muon_momentum, grad_scale, options_.muon);
    } else {
      normuon_step(group.matrices, group.second_moments,
                   {.learning_rate = rate, .momentum = muon_momentum, .weight_decay = muon_weight_decay, .grad_scale = grad_scale},
                   options_.normuon);
    }
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
      if (i < group.second_moments.size()) {
        tensors.emplace_back(group.names[i] + ".second_momentum_buffer", group.second_moments[i]);
      }
    }
  }
  return tensors;
}

}  // namespace nanochat
