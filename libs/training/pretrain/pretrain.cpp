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
#include "training/pretrain/training_data.h"
#include "training/trainer/memory_check.h"
#include "training/trainer/train_on.h"
#include "training/trainer/trainer.h"

namespace nanochat {
namespace {

class Pretraining : public Stage {
 public:
  Pretraining(const PretrainConfig& config, const Runtime& runtime, Communicator& communicator)
      : config_(config), communicator_(communicator), data_(config_, communicator.rank(), communicator.size()),
        model_config_(config.model_config(data_.tokenizer()->vocab_size())),
        token_bytes_(data_.tokenizer()->token_byte_lengths()) {
    if (config_.total_batch_size < 0) config_.total_batch_size = config_.scaling(model_config_).total_batch_size;
    check_batch_sizes(config_, communicator.size());
    if (config_.device_batch_size == kAutoDeviceBatch) {
      config_.device_batch_size = choose_device_batch(config_, model_config_, runtime, communicator,
                                                      rows_of_process(config_, communicator.size()));
    }
    reason_without_validation_ = data_.reason_without_validation();
  }

  TrainerParts parts(const Runtime& runtime, const std::vector<ScheduledScore>& scores) const {
    const Horizon horizon = config_.horizon(model_config_);
    std::vector<std::string> warnings;
    if (!reason_without_validation_.empty()) {
      warnings.push_back("no document is held out, so there is no validation score: " + reason_without_validation_);
    }
    return {.stage = "pretrain",
            .options = config_.trainer_options(model_config_),
            .runtime = runtime,
            .model = model_config_,
            .tokenizer = data_.tokenizer(),
            .device_batch_size = config_.device_batch_size,
            .horizon = horizon,
            .schedule = {.warmup_ratio = config_.warmup_ratio,
                         .warmup_steps = config_.warmup_steps,
                         .warmdown_ratio = config_.warmdown_ratio,
                         .final_lr_frac = config_.final_lr_frac},
            .muon = muon_schedule(),
            .invariants = {{"data", data_.fingerprint(), {"data_dir"}},
                           {"tokenizer", data_.tokenizer()->fingerprint(), {"tokenizer"}}},
            .declare = [copy = config_](OptionList& options) mutable { declare_pretrain_options(options, copy); },
            .initialize = [seed = config_.seed](Gpt& model) { model.init_weights(seed); },
            .announcement = announcement(horizon),
            .warnings = std::move(warnings),
            .scores = scores,
            .communicator = &communicator_};
  }

  const std::vector<std::string>& samples() const { return samples_; }

  StepReport step(Learner learner, std::int64_t step, const StepSettings& settings) override {
    std::vector<TokenBatch> batches(static_cast<std::size_t>(grad_accum_steps()));
    for (TokenBatch& batch : batches) {
      if (!loader_->next(batch)) throw DataError("the training data holds less than one batch; give more text");
    }
    StepReport report = train_on(learner, batches, settings, token_bytes_);
    report.metrics.update({{"epoch", loader_->epoch()}, {"tokens", (step + 1) * config_.total_batch_size}});
    return report;
  }

  std::optional<Evaluation> evaluate(Gpt& model, std::int64_t step) override {
    if (!reason_without_validation_.empty()) return std::nullopt;
    const auto open = [this](std::int64_t rows, std::int64_t sequence_len) { return data_.validation(rows, sequence_len); };
    const BitsPerByte bpb = evaluate_bits_per_byte(model, open, config_.device_batch_size, config_.sequence_len,
                                                   config_.eval_tokens, token_bytes_, communicator_);
    if (bpb.bytes == 0) return std::nullopt;  // interrupted before the first batch
    return Evaluation{
        bpb.value(),
        {{"validation_tokens", bpb.tokens},
         {"training_flops", model_config_.flops_per_token() * static_cast<double>(step * config_.total_batch_size)}},
        fmt::format("validation bpb {:.4f}", bpb.value())};
  }

  nlohmann::json examine(Gpt& model, std::int64_t step) override {
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
    const auto generations = generate(model, prompts, options);
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
  // Of this process.
  std::int64_t grad_accum_steps() const { return rows_of_process(config_, communicator_.size()) / config_.device_batch_size; }
  std::string each() const {
    return communicator_.alone() ? "" : fmt::format(" in each of {} processes", communicator_.size());
  }

  std::optional<NorMuonSchedule> muon_schedule() const {
    if (!config_.is_2026()) return std::nullopt;
    return NorMuonSchedule{.warmdown_ratio = config_.warmdown_ratio,
                           .weight_decay = config_.scaling(model_config_).weight_decay};
  }

  std::string announcement(const Horizon& horizon) const {
    const std::int64_t iterations = horizon.steps, tokens = iterations * config_.total_batch_size;
    if (horizon.seconds > 0.0) {
      return fmt::format("training: {} of steps of {} tokens ({} micro-batches of {} x {}{}), at least {} of them, {} tokens",
                         human_duration(horizon.seconds), with_commas(config_.total_batch_size), grad_accum_steps(),
                         config_.device_batch_size, config_.sequence_len, each(), with_commas(iterations), with_commas(tokens));
    }
    return fmt::format(
        "training: {} steps of {} tokens ({} micro-batches of {} x {}{}), {} tokens in all, {:.1f} per parameter",
        with_commas(iterations), with_commas(config_.total_batch_size), grad_accum_steps(), config_.device_batch_size,
        config_.sequence_len, each(), with_commas(tokens),
        static_cast<double>(tokens) / static_cast<double>(model_config_.parameter_count()));
  }

  PretrainConfig config_;
  Communicator& communicator_;
  TrainingData data_;
  GptConfig model_config_;
  std::vector<std::int32_t> token_bytes_;
  std::string reason_without_validation_;  // empty: it validates
  std::unique_ptr<Loader> loader_;
  std::vector<std::string> samples_;
};

}  // namespace

PretrainResult pretrain(const PretrainConfig& config, ProgressReporter& progress, const std::vector<ScheduledScore>& scores,
                        Communicator& communicator) {
  const Runtime runtime = select_training_runtime(config, communicator);
  Pretraining stage(config, runtime, communicator);
  PretrainResult result(run_stage(stage.parts(runtime, scores), stage, progress));
  result.samples = stage.samples();
  return result;
}

}  // namespace nanochat
