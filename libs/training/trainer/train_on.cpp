#include "training/trainer/train_on.h"

#include <chrono>

#include <spdlog/fmt/fmt.h>

namespace nanochat {

StepReport train_on(Learner learner, const std::vector<TokenBatch>& batches, const StepSettings& settings,
                    const std::vector<std::int32_t>& token_bytes) {
  const auto start = std::chrono::steady_clock::now();
  const StepResult result = train_step(learner.model, learner.optimizer, batches, settings, token_bytes);
  StepReport report;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.value = result.loss;
  report.tokens = result.tokens;
  const double bpb = result.bits_per_byte.value();
  report.metrics = {{"loss", result.loss},
                    {"bpb", bpb},
                    {"grad_norm", result.grad_norm},
                    {"lr_multiplier", settings.lr_multiplier},
                    {"muon_momentum", settings.muon_momentum}};
  report.summary = fmt::format("bpb {:.4f} | norm {:.3f}", bpb, result.grad_norm);
  return report;
}

}  // namespace nanochat
