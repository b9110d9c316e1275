#include "model/weights.h"

#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <array>

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

// The buffers that layers share, of compute copies or of gradients, and what has been given out of them.
class Weights::SharedBuffers {
 public:
  // Two for layers, which take turns, and one for embedding and head.
  static std::size_t buffer_of(std::int64_t layer) { return layer < 0 ? 2 : static_cast<std::size_t>(layer % 2); }

  void reserve(std::int64_t layer, std::int64_t elements, at::ScalarType type) {
    std::int64_t& used = used_[layer];
    used += aligned_bytes(elements, type);
    sizes_[buffer_of(layer)] = std::max(sizes_[buffer_of(layer)], used);
  }
  void allocate(at::Device device) {
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
      buffers_[i] = at::empty({sizes_[i]}, at::TensorOptions(at::kByte).device(device));
    }
    used_.clear();
  }
  // In the order of reserve().
  at::Tensor take(std::int64_t layer, const std::vector<std::int64_t>& shape, at::ScalarType type) {
    std::int64_t& used = used_[layer];
    const std::int64_t elements = c10::multiply_integers(shape);
    const std::int64_t bytes = elements * static_cast<std::int64_t>(c10::elementSize(type));
    const at::Tensor place = buffers_[buffer_of(layer)].narrow(0, used, bytes);
    used += aligned_bytes(elements, type);
    return place.view(type).view(shape);
  }

 private:
  // So that what follows is as well aligned as a tensor of its own.
  static std::int64_t aligned_bytes(std::int64_t elements, at::ScalarType type) {
    constexpr std::int64_t kAlignment = 256;
    const std::int64_t bytes = elements * static_cast<std::int64_t>(c10::elementSize(type));
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  std::array<at::Tensor, 3> buffers_;
  std::array<std::int64_t, 3> sizes_{};
  std::map<std::int64_t, std::int64_t> used_;  // bytes of each layer
};

Weights::Weights(const GptConfig& config, at::ScalarType dtype, at::Device device, Purpose purpose, Residency residency)
    : purpose_(purpose) {
  TORCH_CHECK(purpose == Purpose::kTraining || residency == Residency::kWhole,
              "Weights: a model for inference has all weights");
  std::map<std::pair<std::int64_t, WeightSlot>, std::vector<TensorSpec>> parts;
  for_each_tensor(config, [&](const TensorSpec& spec) { parts[{spec.layer, spec.slot}].push_back(spec); });
  const auto type_of = [&](const TensorSpec& spec) { return compute_type(spec, dtype, purpose); };
  const auto divided = [&](const TensorSpec& spec) { return residency == Residency::kShared && is_divided(spec); };
  SharedBuffers computes, gradients;
  for (const auto& [place, tensors] : parts) {
    if (!divided(tensors.front())) continue;
    const std::int64_t elements = c10::multiply_integers(shape_of_weight(tensors));
    computes.reserve(place.first, elements, type_of(tensors.front()));
    gradients.reserve(place.first, elements, at::kFloat);
  }
  computes.allocate(device);
  gradients.allocate(device);
  const at::TensorOptions options = at::TensorOptions(dtype).device(device);
  for (const auto& [place, tensors] : parts) {
    Weight& weight = weights_[place];
    weight.role = tensors.front().role;
    const at::ScalarType type = type_of(tensors.front());
    const std::vector<std::int64_t> shape = shape_of_weight(tensors);
    weight.divided = divided(tensors.front());
    if (weight.divided) {
      weight.compute = computes.take(place.first, shape, type);
      weight.grad = gradients.take(place.first, shape, at::kFloat);
      continue;
    }
    weight.compute = at::empty(shape, options.dtype(type));
    const bool master = purpose == Purpose::kTraining && type != at::kFloat;
    weight.value = master ? at::empty(shape, options.dtype(at::kFloat)) : weight.compute;
  }
  for_each_tensor(config, [&](const TensorSpec& spec) {
    const Weight& weight = at(spec.layer, spec.slot);
    const auto rows = [&](const at::Tensor& whole) {
      return whole.defined() ? whole.narrow(0, spec.first_row, spec.shape[0]) : at::Tensor();
    };
    parameters_.push_back({spec, spec.name(), rows(weight.value), rows(weight.compute), rows(weight.grad)});
  });
}

void Weights::zero_grad() {
  TORCH_CHECK(purpose_ == Purpose::kTraining, "a model for inference has no gradients");
  std::vector<at::Tensor> gradients;  // a GPU fills all in one launch
  for (auto& [place, weight] : weights_) {
    if (weight.divided) continue;
    if (weight.grad.defined()) {
      gradients.push_back(weight.grad);
    } else {
      weight.grad = at::zeros(weight.value.sizes(), weight.value.options());
    }
  }
  if (!gradients.empty()) at::_foreach_zero_(gradients);
  for (Parameter& parameter : parameters_) {
    if (parameter.grad.defined()) continue;
    const TensorSpec& spec = parameter.spec;
    parameter.grad = at(spec.layer, spec.slot).grad.narrow(0, spec.first_row, spec.shape[0]);
  }
}

void Weights::refresh_compute() {
  for (auto& [place, weight] : weights_) {
    if (weight.divided) continue;
    if (!weight.compute.is_same(weight.value)) ops::copy_converting(weight.value, weight.compute);
    if (weight.packed) weight.packed.emplace(weight.compute.t());
  }
}

void Weights::pack() {
  for (auto& [place, weight] : weights_) {
    if (!weight.divided && weight.role == TensorRole::kMatrix && ops::has_product_kernels(weight.compute)) {
      weight.packed.emplace(weight.compute.t());
    }
  }
}

}  // namespace nanochat
