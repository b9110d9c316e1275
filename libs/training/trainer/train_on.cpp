#include "training/trainer/train_on.h"

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"

namespace nanochat {

StepReport train_on(Learner learner, const std::vector<TokenBatch>& batches, const StepSettings& settings,
                    const std::vector<std::int32_t>& token_bytes) {
  const auto start = SteadyClock::now();
  const StepResult result = train_step(learner.model, learner.optimizer, batches, settings, token_bytes);
  StepReport report;
  report.seconds = seconds_since(start);
  report.value = result.loss;
  report.tokens = result.tokens;
  report.supervised_tokens = result.supervised_tokens;
  report.metrics = {{"loss", result.loss},
                    {"grad_norm", result.grad_norm},
                    {"lr_multiplier", settings.lr_multiplier},
                    {"muon_momentum", settings.muon_momentum}};
  std::string bpb = "-";  // a step whose targets are special tokens alone has no bytes
  if (result.bits_per_byte.bytes > 0) {
    report.metrics["bpb"] = result.bits_per_byte.value();
    bpb = fmt::format("{:.4f}", result.bits_per_byte.value());
  }
  report.summary = fmt::format("bpb {} | norm {:.3f}", bpb, result.grad_norm);
  return report;
}

}  // namespace nanochat
