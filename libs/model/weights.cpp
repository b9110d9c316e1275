#include "model/weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "ops/cast.h"

namespace nanochat {
namespace {

std::vector<std::int64_t> shape_of_weight(const std::vector<TensorSpec>& parts) {
  std::vector<std::int64_t> shape = parts.front().shape;
  for (const TensorSpec& part : parts) shape[0] = std::max(shape[0], part.first_row + part.shape[0]);
  return shape;
}

at::ScalarType compute_type(const TensorSpec& spec, at::ScalarType dtype, Purpose purpose) {
  if (spec.role == TensorRole::kScalars) return at::kFloat;
  return computes_in_float32(spec) && purpose == Purpose::kTraining ? at::kFloat : dtype;
}

}  // namespace

Weights::Weights(const GptConfig& config, at::ScalarType dtype, at::Device device, Purpose purpose) : purpose_(purpose) {
  std::map<std::pair<std::int64_t, WeightSlot>, std::vector<TensorSpec>> parts;
  for_each_tensor(config, [&](const TensorSpec& spec) { parts[{spec.layer, spec.slot}].push_back(spec); });
  const at::TensorOptions options = at::TensorOptions(dtype).device(device);
  for (const auto& [place, tensors] : parts) {
    Weight& weight = weights_[place];
    weight.role = tensors.front().role;
    const at::ScalarType type = compute_type(tensors.front(), dtype, purpose);
    weight.compute = at::empty(shape_of_weight(tensors), options.dtype(type));
    const bool master = purpose == Purpose::kTraining && type != at::kFloat;
    weight.value = master ? at::empty(weight.compute.sizes(), options.dtype(at::kFloat)) : weight.compute;
  }
  for_each_tensor(config, [&](const TensorSpec& spec) {
    const Weight& weight = at(spec.layer, spec.slot);
    parameters_.push_back({spec, spec.name(), weight.value.narrow(0, spec.first_row, spec.shape[0]),
                           weight.compute.narrow(0, spec.first_row, spec.shape[0]), at::Tensor()});
  });
}

void Weights::zero_grad() {
  TORCH_CHECK(purpose_ == Purpose::kTraining, "a model for inference has no gradients");
  for (auto& [place, weight] : weights_) {
    if (weight.grad.defined()) {
      weight.grad.zero_();
    } else {
      weight.grad = at::zeros(weight.value.sizes(), weight.value.options());
    }
  }
  if (parameters_.front().grad.defined()) return;
  for (Parameter& parameter : parameters_) {
    const TensorSpec& spec = parameter.spec;
    parameter.grad = at(spec.layer, spec.slot).grad.narrow(0, spec.first_row, spec.shape[0]);
  }
}

void Weights::refresh_compute() {
  for (auto& [place, weight] : weights_) {
    if (!weight.compute.is_same(weight.value)) ops::copy_converting(weight.value, weight.compute);
    if (weight.packed) weight.packed.emplace(weight.compute.t());
  }
}

void Weights::pack() {
  for (auto& [place, weight] : weights_) {
    if (weight.role == TensorRole::kMatrix && ops::has_product_kernels(weight.compute)) {
      weight.packed.emplace(weight.compute.t());
    }
  }
}

}  // namespace nanochat
