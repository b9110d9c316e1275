#include "training/trainer/train_step.h"

#include <ATen/ops/full.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/elapsed.h"
#include "core/errors.h"
#include "model/stability.h"
#include "optim/gradient.h"
#include "training/trainer/batch_tensors.h"

namespace nanochat {
namespace {

std::int64_t supervised_tokens(const std::vector<TokenBatch>& micro_batches) {
  std::int64_t supervised = 0;
  for (const TokenBatch& batch : micro_batches) {
    if (!batch.weights.empty()) continue;
    supervised += std::count_if(batch.targets.begin(), batch.targets.end(), [](std::int32_t target) { return target >= 0; });
  }
  return supervised;
}

// Factors of the losses of a batch: its weights, or one over the supervised tokens of the step.
at::Tensor scale_of(const TokenBatch& batch, std::int64_t supervised, at::Device device) {
  if (!batch.weights.empty()) return weights_of(batch);
  const double scale = supervised > 0 ? 1.0 / static_cast<double>(supervised) : 0.0;
  return at::full({batch.rows, batch.sequence_len}, scale, at::TensorOptions(at::kFloat).device(device));
}

// The loss of the step, from the losses of its micro-batches.
double total_loss(const std::vector<TokenBatch>& micro_batches, const std::vector<at::Tensor>& losses,
                  std::int64_t supervised) {
  double weighted = 0.0, nats = 0.0;
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    const TokenBatch& batch = micro_batches[i];
    if (batch.weights.empty()) {
      nats += losses[i].sum(at::kDouble).item<double>();
    } else {
      weighted += losses[i].cpu().mul(weights_of(batch)).sum(at::kDouble).item<double>();
    }
  }
  return supervised > 0 ? weighted + nats / static_cast<double>(supervised) : weighted;
}

[[noreturn]] void report_non_finite(Gpt& model, const std::vector<TokenBatch>& micro_batches, std::int64_t supervised,
                                    double loss, double norm) {
  for (const TokenBatch& batch : micro_batches) {
    const auto found = find_non_finite(model, inputs_of(batch), targets_of(batch), scale_of(batch, supervised, model.device()),
                                       documents_of(batch));
    if (found) throw NumericalError(*found);
  }
  throw NumericalError(fmt::format("the loss is {} and the gradient norm {}, though every tensor is finite by itself", loss,
                                   norm));
}

}  // namespace

StepResult train_step(Gpt& model, Optimizer& optimizer, const std::vector<TokenBatch>& micro_batches,
                      const StepSettings& settings, const std::vector<std::int32_t>& token_bytes) {
  const auto start = SteadyClock::now();
  const std::int64_t supervised = supervised_tokens(micro_batches);
  StepResult result;
  model.zero_grad();
  std::vector<at::Tensor> losses;
  for (const TokenBatch& batch : micro_batches) {
    losses.push_back(model.forward_backward(inputs_of(batch), targets_of(batch), scale_of(batch, supervised, model.device()),
                                            documents_of(batch)));
    result.tokens += batch.rows * batch.sequence_len;
  }
  result.loss = total_loss(micro_batches, losses, supervised);
  result.forward_backward_seconds = seconds_since(start);
  for (std::size_t i = 0; i < micro_batches.size() && !token_bytes.empty(); ++i) {
    result.bits_per_byte.add(losses[i], micro_batches[i], token_bytes);
  }
  result.grad_norm = gradient_norm(model.parameters());
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    report_non_finite(model, micro_batches, supervised, result.loss, result.grad_norm);
  }
  optimizer.step(settings.lr_multiplier, settings.muon_momentum, clip_scale(result.grad_norm, settings.grad_clip));
  return result;
}

}  // namespace nanochat
