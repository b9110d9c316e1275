#include "training/trainer/train_step.h"

#include <ATen/ops/full.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/errors.h"
#include "model/stability.h"
#include "optim/gradient.h"

namespace nanochat {
namespace {

at::Tensor scale_of(const TokenBatch& batch, std::int64_t supervised, at::Device device) {
  const double scale = supervised > 0 ? 1.0 / static_cast<double>(supervised) : 0.0;
  return at::full({batch.rows, batch.sequence_len}, scale, at::TensorOptions(at::kFloat).device(device));
}

[[noreturn]] void report_non_finite(Gpt& model, const std::vector<TokenBatch>& micro_batches, std::int64_t supervised,
                                    double loss, double norm) {
  for (const TokenBatch& batch : micro_batches) {
    const auto found = find_non_finite(model, inputs_of(batch), targets_of(batch),
                                       scale_of(batch, supervised, model.device()), documents_of(batch));
    if (found) throw NumericalError(*found);
  }
  throw NumericalError(fmt::format("the loss is {} and the gradient norm {}, though every tensor is finite by itself", loss, norm));
}

}  // namespace

StepResult train_step(Gpt& model, Optimizer& optimizer, const std::vector<TokenBatch>& micro_batches,
                      const StepSettings& settings, const std::vector<std::int32_t>& token_bytes) {
  std::int64_t supervised = 0;
  for (const TokenBatch& batch : micro_batches) {
    supervised += std::count_if(batch.targets.begin(), batch.targets.end(), [](std::int32_t target) { return target >= 0; });
  }
  StepResult result;
  model.zero_grad();
  std::vector<at::Tensor> losses;
  for (const TokenBatch& batch : micro_batches) {
    losses.push_back(model.forward_backward(inputs_of(batch), targets_of(batch),
                                            scale_of(batch, supervised, model.device()), documents_of(batch)));
    result.tokens += batch.rows * batch.sequence_len;
  }
  // Only now, so that a GPU does not stand still between micro-batches while the host reads losses.
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    result.loss += losses[i].sum(at::kDouble).item<double>();
    result.bits_per_byte.add(losses[i], micro_batches[i], token_bytes);
  }
  if (supervised > 0) result.loss /= static_cast<double>(supervised);
  result.grad_norm = gradient_norm(model.parameters());
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    report_non_finite(model, micro_batches, supervised, result.loss, result.grad_norm);
  }
  optimizer.step(settings.lr_multiplier, settings.muon_momentum, clip_scale(result.grad_norm, settings.grad_clip));
  return result;
}

}  // namespace nanochat
