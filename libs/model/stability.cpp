#include "model/stability.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/isnan.h>
#include <spdlog/fmt/fmt.h>

#include "model/gpt.h"

namespace nanochat {

std::optional<std::string> describe_non_finite(const std::string& name, const at::Tensor& tensor) {
  const std::int64_t finite = at::isfinite(tensor).sum().item<std::int64_t>();
  if (finite == tensor.numel()) return std::nullopt;
  const std::int64_t nan = at::isnan(tensor).sum().item<std::int64_t>();
  const std::int64_t infinite = tensor.numel() - finite - nan;
  std::string counts = nan > 0 ? fmt::format("{} NaN", nan) : "";
  if (infinite > 0) counts += fmt::format("{}{} Inf", nan > 0 ? " and " : "", infinite);
  return fmt::format("{} has {} of {} values", name, counts, tensor.numel());
}

std::optional<std::string> find_non_finite_weight(const Gpt& model) {
  std::optional<std::string> first;
  model.visit_values([&](const std::string& name, const at::Tensor& value) {
    if (!first) first = describe_non_finite(name, value);
  });
  return first;
}

std::optional<std::string> find_non_finite(Gpt& model, const at::Tensor& ids, const at::Tensor& targets,
                                           const at::Tensor& scale, const at::Tensor& documents) {
  if (auto found = find_non_finite_weight(model)) return found;
  return find_non_finite_in_pass(model, ids, targets, scale, documents);
}

std::optional<std::string> find_non_finite_in_pass(Gpt& model, const at::Tensor& ids, const at::Tensor& targets,
                                                   const at::Tensor& scale, const at::Tensor& documents) {
  std::optional<std::string> first, first_gradient;
  model.set_observer([&](const std::string& name, const at::Tensor& tensor) {
    if (!first) first = describe_non_finite(name, tensor);
  });
  // Layers may share buffers for their gradients, so these are looked at when they are final. Parameters come in the order of
  // the forward pass; gradients are computed from the last to the first.
  model.set_gradients_final([&](std::int64_t layer) {
    for (auto parameter = model.parameters().rbegin(); !first_gradient && parameter != model.parameters().rend(); ++parameter) {
      if (parameter->spec.layer != layer) continue;
      first_gradient = describe_non_finite("gradient of " + parameter->name, parameter->grad);
    }
  });
  model.zero_grad();
  model.forward_backward(ids, targets, scale, documents);
  model.set_observer({});
  model.set_gradients_final({});
  model.zero_grad();
  return first ? first : first_gradient;
}

}  // namespace nanochat
