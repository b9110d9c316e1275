#include "optim/sharded_weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include "ops/cast.h"

namespace nanochat {
namespace {

at::Tensor rows_of(const at::Tensor& whole, const OwnedRows& rows) {
  return whole.narrow(0, rows.first, rows.end - rows.first);
}

}  // namespace

ShardedWeights::ShardedWeights(Gpt& model, Communicator& communicator, at::ScalarType gradient_comm_dtype)
    : model_(model), communicator_(communicator), gradient_comm_dtype_(gradient_comm_dtype) {
  std::vector<Parameter>& parameters = model.parameters();
  const std::vector<std::vector<OwnedRows>> divided = divide_parameters(parameters, communicator.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Parameter& parameter = parameters[i];
    if (parameter.value.defined()) continue;
    layers_[parameter.spec.layer].push_back({&parameter, divided[i]});
    for (const OwnedRows& rows : divided[i]) {
      if (rows.owner != communicator.rank()) continue;
      std::vector<std::int64_t> shape = parameter.spec.shape;
      shape[0] = rows.end - rows.first;
      const at::TensorOptions master = parameter.compute.options().dtype(at::kFloat);
      Shard shard{rows, at::empty(shape, master), {}, at::zeros(shape, master)};
      const bool copy = parameter.compute.scalar_type() != at::kFloat;
      shard.compute = copy ? at::empty(shape, parameter.compute.options()) : shard.value;
      shards_.emplace(&parameter, shard);
    }
  }
  TORCH_CHECK(!layers_.empty(), "ShardedWeights: expected a model of Residency::kShared");
  model_.set_keeper(this);
}

ShardedWeights::~ShardedWeights() { model_.set_keeper(nullptr); }

Shard* ShardedWeights::find(const Parameter& parameter) {
  const auto found = shards_.find(&parameter);
  return found == shards_.end() ? nullptr : &found->second;
}

void ShardedWeights::for_each_part(std::int64_t layer,
                                   const std::function<void(const Divided&, const OwnedRows&, Shard*)>& visit) {
  for (const Divided& divided : layers_.at(layer)) {
    for (const OwnedRows& rows : divided.parts) {
      visit(divided, rows, rows.owner == communicator_.rank() ? find(*divided.parameter) : nullptr);
    }
  }
}

// --- weights

// What the pass comes to next; nullopt where it ends, or turns.
std::optional<std::int64_t> ShardedWeights::after(std::int64_t layer, PassDirection direction) const {
  const std::int64_t layers = model_.config().n_layer;
  if (direction == PassDirection::kBackward) return layer > 0 ? std::optional(layer - 1) : std::nullopt;
  if (layer == kBeforeLayers) return 0;
  if (layer == kAfterLayers) return std::nullopt;
  return layer + 1 < layers ? layer + 1 : kAfterLayers;
}

void ShardedWeights::gather(std::int64_t layer) {
  WeightBuffer& buffer = weights_[buffer_of(layer)];
  if (buffer.layer == layer) return;
  buffer.arriving.wait();  // of a pass that ended before it was read
  std::vector<OwnedTensor> parts;
  for_each_part(layer, [&](const Divided& divided, const OwnedRows& rows, Shard* shard) {
    at::Tensor place = rows_of(divided.parameter->compute, rows);
    if (shard != nullptr) place.copy_(shard->compute);
    parts.push_back({place, rows.owner});
  });
  buffer.arriving = communicator_.spread_from_owners(parts);
  buffer.layer = layer;
}

void ShardedWeights::want(std::int64_t layer, PassDirection direction) {
  if (uneven_ && layer == kBeforeLayers && direction == PassDirection::kForward) any_passes_again(true);
  gather(layer);
  // On a GPU this comes after the work that reads what the buffer had, and before that of this layer: it goes on beneath it.
  if (const auto next = after(layer, direction)) gather(*next);
  weights_[buffer_of(layer)].arriving.wait();
}

void ShardedWeights::forget_weights() {
  for (WeightBuffer& buffer : weights_) {
    buffer.arriving.wait();
    buffer.layer.reset();
  }
}

void ShardedWeights::weights_changed() {
  forget_weights();
  gather(kBeforeLayers);
  gather(0);
}

void ShardedWeights::store(const Parameter& parameter, const at::Tensor& whole) {
  forget_weights();
  Shard* shard = find(parameter);
  if (shard == nullptr) return;
  shard->value.copy_(rows_of(whole, shard->rows));
  if (!shard->compute.is_same(shard->value)) ops::copy_converting(shard->value, shard->compute);
}

void ShardedWeights::visit_values(const std::function<void(const std::string&, const at::Tensor&)>& visit) const {
  for (const Parameter& parameter : model_.parameters()) {
    const auto found = shards_.find(&parameter);
    if (found != shards_.end()) visit(parameter.name, found->second.value);
  }
}

// --- gradients

void ShardedWeights::begin_gradients(std::int64_t layer) {
  collect(gradients_[buffer_of(layer)]);
  for (const Divided& divided : layers_.at(layer)) divided.parameter->grad.zero_();
}

void ShardedWeights::end_gradients(std::int64_t layer) {
  GradientBuffer& buffer = gradients_[buffer_of(layer)];
  for_each_part(layer, [&](const Divided& divided, const OwnedRows& rows, Shard* shard) {
    at::Tensor sum = rows_of(divided.parameter->grad, rows);
    if (gradient_comm_dtype_ != at::kFloat) sum = sum.to(gradient_comm_dtype_);
    buffer.sent.push_back({sum, rows.owner});
    if (shard != nullptr) buffer.owned.emplace_back(sum, shard);
  });
  buffer.leaving = communicator_.reduce_to_owners(buffer.sent);
}

// Until the buffer is free.
void ShardedWeights::collect(GradientBuffer& buffer) {
  buffer.leaving.wait();
  for (auto& [sum, shard] : buffer.owned) shard->grad.add_(sum);
  buffer.sent.clear();
  buffer.owned.clear();
}

void ShardedWeights::wait_for_gradients() {
  for (GradientBuffer& buffer : gradients_) collect(buffer);
}

void ShardedWeights::zero_grad() {
  wait_for_gradients();
  for (auto& [parameter, shard] : shards_) shard.grad.zero_();
}

// --- passes of other processes

void ShardedWeights::follow_pass(bool backward) {
  const std::int64_t layers = model_.config().n_layer;
  want(kBeforeLayers, PassDirection::kForward);
  for (std::int64_t layer = 0; layer < layers; ++layer) want(layer, PassDirection::kForward);
  want(kAfterLayers, PassDirection::kForward);
  if (!backward) return;
  const auto no_gradients = [this](std::int64_t layer) {
    begin_gradients(layer);
    end_gradients(layer);
  };
  no_gradients(kAfterLayers);
  for (std::int64_t layer = layers; layer-- > 0;) {
    want(layer, PassDirection::kBackward);
    no_gradients(layer);
  }
  no_gradients(kBeforeLayers);
}

// Whether any process makes another pass. The barrier has no time-out: a process may take long between two passes.
bool ShardedWeights::any_passes_again(bool mine) {
  communicator_.barrier();
  const at::Tensor any = at::full({1}, mine ? 1 : 0, at::kInt);
  communicator_.all_reduce(any, ReduceOp::kMax).wait();
  return *any.const_data_ptr<std::int32_t>() != 0;
}

void ShardedWeights::begin_uneven_passes() { uneven_ = true; }

void ShardedWeights::end_uneven_passes() {
  uneven_ = false;
  while (any_passes_again(false)) follow_pass(/*backward=*/false);
}

// --- checkpoints

std::vector<std::pair<std::string, at::Tensor>> ShardedWeights::gather_values() {
  wait_for_gradients();
  std::vector<std::pair<std::string, at::Tensor>> values;
  for (Parameter& parameter : model_.parameters()) {
    at::Tensor whole = parameter.value;
    if (!whole.defined()) {
      // Between two steps, the buffers of gradients are free.
      whole = parameter.grad;
      std::vector<OwnedTensor> parts;
      for (const Divided& divided : layers_.at(parameter.spec.layer)) {
        if (divided.parameter != &parameter) continue;
        for (const OwnedRows& rows : divided.parts) parts.push_back({rows_of(whole, rows), rows.owner});
      }
      if (const Shard* shard = find(parameter)) rows_of(whole, shard->rows).copy_(shard->value);
      communicator_.spread_from_owners(parts).wait();
    }
    if (communicator_.is_root()) values.emplace_back(parameter.name, whole.to(at::kCPU, at::kFloat, false, /*copy=*/true));
  }
  return values;
}

}  // namespace nanochat
