#include "training/pretrain/pretrain.h"

#include <cmath>
#include <optional>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"
#include "core/options.h"
#include "inference/generator.h"
#include "optim/schedule.h"
#include "training/pretrain/training_data.h"
#include "training/trainer/memory_check.h"
#include "training/trainer/train_on.h"
#include "training/trainer/trainer.h"

namespace nanochat {
namespace {

void check_batch_sizes(const PretrainConfig& config) {
  const std::int64_t micro = config.device_batch_size * config.sequence_len;
  if (config.total_batch_size % micro == 0) return;
  throw ConfigError(fmt::format(
      "--total-batch-size {} is not a multiple of --device-batch-size {} x --sequence-len {} = {}; the nearest is {}",
      config.total_batch_size, config.device_batch_size, config.sequence_len, micro,
      std::max<std::int64_t>(1, (config.total_batch_size + micro / 2) / micro) * micro));
}

class Pretraining : public Stage {
 public:
  Pretraining(const PretrainConfig& config, const std::vector<ScheduledScore>& scores, ProgressReporter& progress)
      : config_(config),
        runtime_(select_runtime(config.runtime, Workload::kTraining)),
        data_(config),
        model_config_(config.model_config(data_.tokenizer()->vocab_size())),
        token_bytes_(data_.tokenizer()->token_byte_lengths()) {
    check_batch_sizes(config);
    const bool background = save_in_background(config_, model_config_, runtime_, config.device_batch_size,
                                               config.sequence_len);
    const std::string reason = data_.reason_without_validation();  // reads the data, before there is a run
    validates_ = reason.empty();
    horizon_ = config.horizon(model_config_);
    schedule_ = {.num_iterations = horizon_.steps,
                 .warmup_ratio = config.warmup_ratio,
                 .warmdown_ratio = config.warmdown_ratio,
                 .final_lr_frac = config.final_lr_frac};
    trainer_.emplace(TrainerParts{.stage = "pretrain",
                                  .options = config_,
                                  .runtime = runtime_,
                                  .model = model_config_,
                                  .tokenizer = data_.tokenizer(),
                                  .horizon = horizon_,
                                  .invariants = {{"data", data_.fingerprint(), {"data_dir"}},
                                                 {"tokenizer", data_.tokenizer()->fingerprint(), {"tokenizer"}}},
                                  .save_in_background = background,
                                  .declare = [copy = config](OptionList& options) mutable { declare_pretrain_options(options, copy); },
                                  .initialize = [seed = config.seed](Gpt& model) { model.init_weights(seed); },
                                  .announcement = [this] { return announcement(); },
                                  .scores = scores},
                     *this, progress);
    if (!validates_) log_warn("no document is held out, so there is no validation score: {}", reason);
  }

  PretrainResult run() {
    PretrainResult result(trainer_->run());
    result.samples = samples_;
    return result;
  }

  StepReport step(Learner learner, std::int64_t step) override {
    std::vector<TokenBatch> batches(static_cast<std::size_t>(micro_batches()));
    for (TokenBatch& batch : batches) {
      if (!loader_->next(batch)) throw DataError("the training data holds less than one batch; give more text");
    }
    schedule_.num_iterations = horizon_.expected_steps(step, learner.training_seconds);
    StepReport report = train_on(learner, batches,
                                 {.lr_multiplier = schedule_.multiplier(step),
                                  .muon_momentum = muon_momentum(step),
                                  .grad_clip = config_.grad_clip},
                                 token_bytes_);
    report.metrics.update({{"epoch", loader_->epoch()}, {"tokens", (step + 1) * config_.total_batch_size}});
    return report;
  }

  std::optional<Evaluation> evaluate(Learner learner, std::int64_t step) override {
    if (!validates_) return std::nullopt;
    const auto open = [this](std::int64_t rows, std::int64_t sequence_len) { return data_.validation(rows, sequence_len); };
    const BitsPerByte bpb = evaluate_bits_per_byte(learner.model, open, config_.device_batch_size, config_.sequence_len,
                                                   config_.eval_tokens, token_bytes_);
    if (bpb.bytes == 0) return std::nullopt;  // interrupted before the first batch
    return Evaluation{bpb.value(),
                      {{"validation_tokens", bpb.tokens},
                       {"training_flops", model_config_.flops_per_token() * static_cast<double>(step * config_.total_batch_size)}},
                      fmt::format("validation bpb {:.4f}", bpb.value())};
  }

  nlohmann::json examine(Learner learner, std::int64_t step) override {
    const Tokenizer& tokenizer = *data_.tokenizer();
    GenerationOptions options;
    options.max_tokens = 16;
    options.sampling.temperature = 0.0;
    options.stop_tokens = {tokenizer.bos_id()};
    samples_.clear();
    std::vector<std::vector<std::int32_t>> prompts;
    std::vector<std::string> texts;
    for (const std::string& prompt : config_.sample_prompts) {
      std::vector<std::int32_t> ids{tokenizer.bos_id()};
      tokenizer.encode(prompt, ids);
      if (static_cast<std::int64_t>(ids.size()) >= model_config_.sequence_len) continue;
      prompts.push_back(std::move(ids));
      texts.push_back(prompt);
    }
    const auto generations = generate(learner.model, prompts, options);
    for (std::size_t i = 0; i < generations.size(); ++i) {
      samples_.push_back(replace_invalid_utf8(texts[i] + tokenizer.decode(generations[i].ids)));
      log_info("step {:06d} | sample: {}", step, samples_.back());
    }
    if (samples_.empty()) return nlohmann::json::object();
    return {{"samples", fmt::format("{}", fmt::join(samples_, "\n"))}};
  }

  nlohmann::json position() const override { return loader_->position(); }
  void seek(const nlohmann::json& position) override { loader_ = data_.training(position); }

 private:
  std::int64_t micro_batches() const {
    return config_.total_batch_size / (config_.device_batch_size * config_.sequence_len);
  }

  std::string announcement() const {
    const std::int64_t iterations = horizon_.steps, tokens = iterations * config_.total_batch_size;
    if (horizon_.seconds > 0.0) {
      return fmt::format("training: {} of steps of {} tokens ({} micro-batches of {} x {}), at least {} of them, {} tokens",
                         human_duration(horizon_.seconds), with_commas(config_.total_batch_size), micro_batches(),
                         config_.device_batch_size, config_.sequence_len, with_commas(iterations), with_commas(tokens));
    }
    return fmt::format("training: {} steps of {} tokens ({} micro-batches of {} x {}), {} tokens in all, {:.1f} per parameter",
                       with_commas(iterations), with_commas(config_.total_batch_size), micro_batches(),
                       config_.device_batch_size, config_.sequence_len, with_commas(tokens),
                       static_cast<double>(tokens) / static_cast<double>(model_config_.parameter_count()));
  }

  const PretrainConfig& config_;
  Runtime runtime_;
  TrainingData data_;
  GptConfig model_config_;
  std::vector<std::int32_t> token_bytes_;
  Horizon horizon_;
  LearningRateSchedule schedule_;
  bool validates_ = false;
  std::unique_ptr<Loader> loader_;
  std::vector<std::string> samples_;
  std::optional<Trainer> trainer_;  // last: it uses the rest
};

}  // namespace

PretrainResult pretrain(const PretrainConfig& config, ProgressReporter& progress, const std::vector<ScheduledScore>& scores) {
  if (config.output_dir.empty()) throw ConfigError("--output-dir is missing: name the folder of the run");
  Pretraining pretraining(config, scores, progress);
  return pretraining.run();
}

}  // namespace nanochat
