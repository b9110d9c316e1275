#include "optim/optimizer.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "model/memory.h"
#include "ops/optimizer.h"

namespace nanochat {

namespace {

// Numbers of the state that are in float32 at a time where it is kept in another type: 64 MiB.
constexpr std::int64_t kNumbersAtOnce = std::int64_t{1} << 24;

}  // namespace

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

Optimizer::Optimizer(std::vector<Parameter>& parameters, std::int64_t width, const OptimizerOptions& options,
                     Communicator& communicator, ShardedWeights* shards)
    : options_(options), communicator_(communicator), shards_(shards) {
  const std::vector<std::vector<OwnedRows>> divided = divide_parameters(parameters, communicator.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    for (const OwnedRows& rows : divided[i]) {
      if (rows.owner == communicator.rank()) own(parameters[i], rows, width);
    }
    if (!communicator.alone() && parameters[i].value.defined())
      layers_[parameters[i].spec.layer].push_back({&parameters[i], divided[i]});
  }
}

at::Tensor Optimizer::Owned::of(const at::Tensor& whole, at::Tensor Shard::*part) const {
  return shard != nullptr ? shard->*part : whole.narrow(0, rows.first, rows.end - rows.first);
}

at::Tensor Optimizer::Owned::grad() const {
  TORCH_CHECK(shard != nullptr || parameter->grad.defined(), "Optimizer: ", parameter->name, " has no gradient");
  return of(parameter->grad, &Shard::grad);
}

void Optimizer::own(Parameter& parameter, const OwnedRows& rows, std::int64_t width) {
  Shard* shard = shards_ != nullptr ? shards_->find(parameter) : nullptr;
  TORCH_CHECK(shard != nullptr || parameter.value.defined(), "Optimizer: nobody keeps the weights of ", parameter.name);
  const Owned owned{&parameter, rows, shard};
  const at::Tensor value = owned.value();
  const at::ScalarType type = has_large_state(parameter.spec) ? options_.state_dtype : at::kFloat;
  const auto zeros = [&] { return at::zeros(value.sizes(), value.options().dtype(type)); };
  if (parameter.spec.group != OptimizerGroup::kMatrix) {
    adamw_.push_back({owned, adamw_rule(options_, parameter.spec.group, width), zeros(), zeros()});
    return;
  }
  auto group = std::find_if(muon_.begin(), muon_.end(),
                            [&](const MuonGroup& g) { return g.matrices.value.front().sizes() == value.sizes(); });
  if (group == muon_.end()) group = muon_.emplace(muon_.end());
  group->names.push_back(parameter.name);
  group->matrices.add(value, at::Tensor(), zeros(), owned.compute());
  group->owned.push_back(owned);
  if (options_.rules == OptimizerRules::kNanochat2026_07) group->second_moments.push_back(make_second_moment(value));
}

std::vector<OwnedTensor> Optimizer::parts_of(const std::vector<Divided>& parameters, at::Tensor Parameter::*which) {
  std::vector<OwnedTensor> parts;
  for (const Divided& divided : parameters) {
    const at::Tensor& whole = divided.parameter->*which;
    for (const OwnedRows& rows : divided.parts)
      parts.push_back({whole.narrow(0, rows.first, rows.end - rows.first), rows.owner});
  }
  return parts;
}

void Optimizer::reduce_gradients(std::int64_t layer) {
  const auto found = layers_.find(layer);
  if (found == layers_.end()) return;
  Reduction reduction;
  reduction.parts = parts_of(found->second, &Parameter::grad);
  if (options_.gradient_comm_dtype != at::kFloat) {
    for (OwnedTensor& part : reduction.parts) {
      const at::Tensor gradient = part.tensor;
      part.tensor = gradient.to(options_.gradient_comm_dtype);
      if (part.owner == communicator_.rank()) reduction.owned.emplace_back(part.tensor, gradient);
    }
  }
  reduction.work = communicator_.reduce_to_owners(reduction.parts);
  reductions_.push_back(std::move(reduction));
}

void Optimizer::reduce_all_gradients() {
  reduce_gradients(kAfterLayers);
  for (auto layer = layers_.rbegin(); layer != layers_.rend() && layer->first >= 0; ++layer) reduce_gradients(layer->first);
  reduce_gradients(kBeforeLayers);
}

void Optimizer::wait_for_gradients() {
  for (Reduction& reduction : reductions_) {
    reduction.work.wait();
    for (auto& [sum, gradient] : reduction.owned) gradient.copy_(sum);
  }
  reductions_.clear();
  if (shards_ != nullptr) shards_->wait_for_gradients();
}

double Optimizer::sum_of_squares() const {
  std::vector<at::Tensor> gradients;
  for (const AdamWState& state : adamw_) gradients.push_back(state.owned.grad());
  for (const MuonGroup& group : muon_) {
    for (const Owned& owned : group.owned) gradients.push_back(owned.grad());
  }
  return gradients.empty() ? 0.0 : ops::sum_of_squares(gradients);
}

void Optimizer::update_adamw(AdamWState& state, double lr_multiplier, double grad_scale) {
  const at::Tensor value = state.owned.value(), gradient = state.owned.grad(), compute = state.owned.compute();
  const std::int64_t rows = value.size(0),
                     row_numbers = std::max<std::int64_t>(1, value.numel() / std::max<std::int64_t>(1, rows));
  const bool whole = state.first_moment.scalar_type() == at::kFloat;
  const std::int64_t at_once = whole ? rows : std::max<std::int64_t>(1, kNumbersAtOnce / row_numbers);
  for (std::int64_t first = 0; first < rows; first += at_once) {
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, first, std::min(at_once, rows - first)); };
    // What is float32 is not copied.
    at::Tensor first_moment = part(state.first_moment).to(at::kFloat), second_moment = part(state.second_moment).to(at::kFloat);
    at::Tensor values = part(value), copy = part(compute);
    adamw_step(values, part(gradient), first_moment, second_moment, copy, steps_, state.rule.learning_rate * lr_multiplier,
               grad_scale, state.rule.options);
    if (whole) continue;
    part(state.first_moment).copy_(first_moment);
    part(state.second_moment).copy_(second_moment);
  }
}

void Optimizer::update_matrices(MuonGroup& group, const NorMuonStep& step) {
  for (std::size_t i = 0; i < group.owned.size(); ++i) group.matrices.gradient[i] = group.owned[i].grad();
  const auto update = [&](const ops::MatrixList& matrices, std::vector<at::Tensor>& second_moments) {
    if (options_.rules == OptimizerRules::kNanochat2026_07) {
      normuon_step(matrices, second_moments, step, options_.normuon);
    } else {
      muon_step(matrices, step.learning_rate, step.momentum, step.grad_scale, options_.muon);
    }
  };
  const ops::MatrixList& all = group.matrices;
  if (all.momentum.front().scalar_type() == at::kFloat) return update(all, group.second_moments);
  const auto at_once = static_cast<std::size_t>(std::max<std::int64_t>(1, kNumbersAtOnce / all.value.front().numel()));
  for (std::size_t first = 0; first < all.value.size(); first += at_once) {
    const std::size_t end = std::min(first + at_once, all.value.size());
    ops::MatrixList some;
    std::vector<at::Tensor> second_moments;
    for (std::size_t i = first; i < end; ++i) {
      some.add(all.value[i], all.gradient[i], all.momentum[i].to(at::kFloat), all.compute[i]);
      if (!group.second_moments.empty()) second_moments.push_back(group.second_moments[i]);
    }
    update(some, second_moments);
    for (std::size_t i = first; i < end; ++i) all.momentum[i].copy_(some.momentum[i - first]);
  }
}

void Optimizer::step(double lr_multiplier, double muon_momentum, double grad_scale, double muon_weight_decay) {
  wait_for_weights();  // of a process that had no micro-batch
  ++steps_;
  for (AdamWState& state : adamw_) update_adamw(state, lr_multiplier, grad_scale);
  const NorMuonStep matrices{.learning_rate = options_.matrix_lr * lr_multiplier,
                             .momentum = muon_momentum,
                             .weight_decay = muon_weight_decay,
                             .grad_scale = grad_scale};
  for (MuonGroup& group : muon_) update_matrices(group, matrices);
  if (shards_ != nullptr) shards_->weights_changed();
  if (layers_.empty()) return;
  const auto spread = [&](std::int64_t layer) {
    const auto found = layers_.find(layer);
    if (found != layers_.end()) {
      weights_.emplace(layer, communicator_.spread_from_owners(parts_of(found->second, &Parameter::compute)));
    }
  };
  // In the order of the next forward pass.
  spread(kBeforeLayers);
  for (const auto& [layer, parameters] : layers_) {
    if (layer >= 0) spread(layer);
  }
  spread(kAfterLayers);
}

void Optimizer::wait_for_weights(std::int64_t layer) {
  const auto found = weights_.find(layer);
  if (found == weights_.end()) return;
  found->second.wait();
  weights_.erase(found);
}

void Optimizer::wait_for_weights() {
  for (auto& [layer, work] : weights_) work.wait();
  weights_.clear();
}

void Optimizer::gather_values() {
  wait_for_weights();
  for (const auto& [layer, parameters] : layers_) {
    std::vector<Divided> stale = parameters;
    // What the model computes with in float32, step() has spread.
    std::erase_if(stale, [](const Divided& divided) { return divided.parameter->compute.scalar_type() == at::kFloat; });
    if (!stale.empty()) communicator_.spread_from_owners(parts_of(stale, &Parameter::value)).wait();
  }
}

std::vector<std::pair<std::string, at::Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const AdamWState& state : adamw_) {
    tensors.emplace_back(state.owned.parameter->name + ".exp_avg", state.first_moment);
    tensors.emplace_back(state.owned.parameter->name + ".exp_avg_sq", state.second_moment);
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

std::vector<std::int64_t> Optimizer::state_first_rows() const {
  std::vector<std::int64_t> first_rows;
  for (const AdamWState& state : adamw_) first_rows.insert(first_rows.end(), 2, state.owned.rows.first);
  for (const MuonGroup& group : muon_) first_rows.insert(first_rows.end(), group.names.size() + group.second_moments.size(), 0);
  return first_rows;
}

}  // namespace nanochat
