#include "training/finetune/conversation_training.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"
#include "training/trainer/batch_tensors.h"
#include "training/trainer/same_everywhere.h"
#include "training/trainer/train_on.h"

namespace nanochat {
namespace {

class ConversationTraining : public Stage {
 public:
  ConversationTraining(const FinetuneConfig& config, const ConversationDataOptions& data, const ConversationPlan& plan)
      : config_(config), plan_(plan), communicator_(*plan.communicator), base_(open_base_model(config, plan.stage)),
        model_config_(base_.stored.config), tokenizer_(base_.stored.tokenizer), token_bytes_(tokenizer_->token_byte_lengths()) {
    // A row of T inputs is made of T + 1 tokens; a stream has no rows to fit.
    const std::int64_t longest = plan.packing == ConversationPacking::kStream ? kDefaultConversationTokens
                                                                              : model_config_.sequence_len + 1;
    data_ = load_conversation_data(data, *tokenizer_, longest, config.seed, config.workers, plan.packing);
    shape_ = plan_shape();
  }

  TrainerParts parts(const Runtime& runtime) const {
    const std::int64_t iterations = num_iterations();
    std::vector<std::string> warnings;
    const WarmStart warm_start = plan_warm_start(warnings);
    if (base_.stage == "pretrain" && model_config_.is_2026() && plan_.recipe == "nanochat-2025-12") {
      warnings.push_back(
          "the base model is one of nanochat-2026-07 without midtraining; --recipe nanochat-2026-07 has the learning rates and "
          "the packing for it");
    }
    const TrainerOptions options = base_.with_rates(config_);
    return {.stage = plan_.stage,
            .score = plan_.judge_by_bpb ? "bpb" : "loss",
            .options = options,
            .runtime = runtime,
            .model = model_config_,
            .tokenizer = tokenizer_,
            .device_batch_size = shape_.device_batch_size,
            .horizon = {.steps = steps_to_take(config_, iterations)},
            .scheduled_steps = iterations,
            .schedule = {.warmup_ratio = plan_.warmup_ratio,
                         .warmdown_ratio = plan_.warmdown_ratio,
                         .final_lr_frac = plan_.final_lr_frac},
            .muon_warmup = plan_.muon_warmup,
            .invariants = invariants(options),
            .declare = plan_.declare,
            .initialize = [this](Gpt& model) { read_weights(base_.stored, model); },
            .warm_start = warm_start,
            .announcement = announcement(iterations),
            .warnings = std::move(warnings),
            .scores = plan_.scores,
            .communicator = &communicator_};
  }

  StepReport step(Learner learner, std::int64_t, const StepSettings& settings) override {
    std::vector<TokenBatch> batches(static_cast<std::size_t>(shape_.grad_accum_steps / communicator_.size()));
    for (TokenBatch& batch : batches) loader_->next(batch);
    StepReport report = train_on(learner, batches, settings, token_bytes_);
    report.metrics.update({{"epoch", loader_->epoch()}, {"supervised_tokens", report.supervised_tokens}});
    return report;
  }

  std::optional<Evaluation> evaluate(Gpt& model, std::int64_t) override {
    if (!data_.validation) return std::nullopt;
    return plan_.judge_by_bpb ? evaluate_bpb(model) : evaluate_loss(model);
  }

  nlohmann::json position() const override { return loader_->position(); }
  void seek(const nlohmann::json& position) override {
    loader_ = make_conversation_loader(data_.training, loader_options(plan_.packing, shape_.device_batch_size), position);
  }

 private:
  std::int64_t time() const { return model_config_.sequence_len; }

  std::vector<Invariant> invariants(const TrainerOptions& options) const {
    const std::int64_t tokens = shape_.rows_of_step() * model_config_.sequence_len;
    std::vector<Invariant> found = {{"tokens_per_step", tokens, {"device_batch_size", "base_model"}}};
    const auto inherited = {config_.embedding_lr, config_.unembedding_lr, config_.matrix_lr};
    if (std::count(inherited.begin(), inherited.end(), kInherited) > 0) {
      found.push_back({"learning_rates", {options.embedding_lr, options.unembedding_lr, options.matrix_lr}, {"base_model"}});
    }
    return found;
  }

  WarmStart plan_warm_start(std::vector<std::string>& warnings) const {
    if (!plan_.load_optimizer) return {};
    if (has_optimizer_state(base_.stored.folder)) return {base_.stored.folder, base_.optimizer_steps()};
    warnings.push_back(fmt::format("{}: this checkpoint has no state of the optimizer, which therefore begins at zero",
                                   base_.stored.folder.string()));
    return {};
  }

  ConversationLoaderOptions loader_options(ConversationPacking packing, std::int64_t rows) const {
    return {.rows = rows,
            .sequence_len = time(),
            .packing = packing,
            // As the versions of the reference pad.
            .padding_id = packing == ConversationPacking::kBestFitPad ? tokenizer_->bos_id()
                                                                      : tokenizer_->require_special(kAssistantEnd),
            .seed = config_.seed,
            .rank = communicator_.rank(),
            .world_size = communicator_.size()};
  }
  std::int64_t rows_of_training() const { return rows_of_epoch(*data_.training, loader_options(plan_.packing, 1)); }

  StepShape plan_shape() const {
    constexpr std::int64_t kRows = 8;
    const std::int64_t processes = communicator_.size();
    const std::int64_t most = config_.device_batch_size > 0 ? config_.device_batch_size
                                                            : base_.inherit("device_batch_size", kRows);
    if (plan_.total_batch_size > 0) {
      if (plan_.total_batch_size % time() != 0) {
        throw ConfigError(fmt::format("--total-batch-size {} is not a multiple of the model's context of {}; the nearest is {}",
                                      plan_.total_batch_size, time(),
                                      std::max<std::int64_t>(1, (plan_.total_batch_size + time() / 2) / time()) * time()));
      }
      return step_shape(plan_.total_batch_size / time(), most, processes);
    }
    if (plan_.examples_per_step == 0) {
      return step_shape(std::max<std::int64_t>(1, base_.inherit("total_batch_size", most * time()) / time()), most, processes);
    }
    // As many rows as that many conversations take on average: the rows of every step are equal.
    const double rows_of_one = static_cast<double>(rows_of_training()) / static_cast<double>(data_.training->size());
    return step_shape(std::max<std::int64_t>(1, std::llround(rows_of_one * static_cast<double>(plan_.examples_per_step))), most,
                      processes);
  }

  std::int64_t num_iterations() const {
    if (config_.num_iterations >= 0) return config_.num_iterations;
    if (config_.num_epochs == 0.0) return 0;
    const double rows = config_.num_epochs * static_cast<double>(rows_of_training());
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(rows / static_cast<double>(shape_.rows_of_step())));
  }

  std::string announcement(std::int64_t iterations) const {
    const std::int64_t rows = shape_.rows_of_step();
    return fmt::format(
        "training: {} steps of {} rows ({} micro-batches of {} x {}{}), about {:.0f} conversations a step, {:.1f} epochs",
        with_commas(iterations), rows, shape_.grad_accum_steps, shape_.device_batch_size, time(),
        communicator_.alone() ? "" : fmt::format(", shared by {} processes", communicator_.size()),
        static_cast<double>(data_.training->size() * static_cast<std::size_t>(rows)) /
            static_cast<double>(std::max<std::int64_t>(1, rows_of_training())),
        static_cast<double>(iterations * rows) / static_cast<double>(std::max<std::int64_t>(1, rows_of_training())));
  }

  // Over the validation conversations as one stream, so that figures compare with those of pretraining.
  std::optional<Evaluation> evaluate_bpb(Gpt& model) const {
    ConversationLoaderOptions options = loader_options(ConversationPacking::kStream, shape_.device_batch_size);
    options.loop = options.shuffle = false;
    // Where there is less than a batch: fewer rows, then a shorter one.
    const auto tokens = static_cast<std::int64_t>(data_.validation->tokens());
    options.sequence_len = std::min(options.sequence_len, tokens - 1);
    options.rows = std::clamp<std::int64_t>((tokens - 1) / options.sequence_len, 1, options.rows);
    const auto loader = make_conversation_loader(data_.validation, options, nullptr);
    const std::int64_t batches = std::max<std::int64_t>(1, plan_.eval_tokens / (options.rows * options.sequence_len));
    const BitsPerByte bpb = evaluate_bits_per_byte(model, *loader, batches, token_bytes_, communicator_);
    if (bpb.bytes == 0) {
      if (sum_over_ranks(communicator_, std::int64_t{interrupt_requested()}) > 0)
        return std::nullopt;  // before the first batch
      throw DataError(
          fmt::format("validation: bits per byte cannot be measured, because no text is a target in the first {} tokens",
                      with_commas(batches * options.rows * options.sequence_len)));
    }
    return Evaluation{bpb.value(), {{"validation_tokens", bpb.tokens}}, fmt::format("validation bpb {:.4f}", bpb.value())};
  }

  std::optional<Evaluation> evaluate_loss(Gpt& model) const {
    ConversationLoaderOptions options = loader_options(plan_.packing, shape_.device_batch_size);
    options.loop = options.shuffle = false;
    // Every process goes through all batches, whose lengths say where to stop, and computes its own.
    options.rank = 0;
    options.world_size = 1;
    const auto loader = make_conversation_loader(data_.validation, options, nullptr);
    std::int64_t supervised = 0, positions = 0;
    TokenBatch batch;
    double nats = uneven_passes(model, [&] {
      double sum = 0.0;
      for (int turn = 0; positions < plan_.eval_tokens && !interrupt_requested() && loader->next(batch); ++turn) {
        positions += batch.rows * batch.sequence_len;
        if (turn % communicator_.size() != communicator_.rank()) continue;
        sum += model.token_losses(inputs_of(batch), targets_of(batch), documents_of(batch)).sum(at::kDouble).item<double>();
        supervised += std::count_if(batch.targets.begin(), batch.targets.end(),
                                    [](std::int32_t target) { return target >= 0; });
      }
      return sum;
    });
    nats = sum_over_ranks(communicator_, std::vector<double>{nats}).front();
    supervised = sum_over_ranks(communicator_, supervised);
    if (supervised == 0) return std::nullopt;  // interrupted before the first batch: each conversation has a target
    const double loss = nats / static_cast<double>(supervised);
    return Evaluation{loss, {{"validation_tokens", supervised}}, fmt::format("validation loss {:.4f}", loss)};
  }

  const FinetuneConfig& config_;
  const ConversationPlan& plan_;
  Communicator& communicator_;
  BaseModel base_;
  GptConfig model_config_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<std::int32_t> token_bytes_;
  ConversationData data_;
  StepShape shape_;
  std::unique_ptr<Loader> loader_;
};

}  // namespace

StepShape step_shape(std::int64_t rows_wanted, std::int64_t largest_device_batch_size, std::int64_t processes) {
  std::int64_t steps = (rows_wanted + largest_device_batch_size - 1) / largest_device_batch_size;
  steps = (steps + processes - 1) / processes * processes;
  return {steps, (rows_wanted + steps - 1) / steps};
}

TrainingResult train_on_conversations(const FinetuneConfig& config, const ConversationDataOptions& data,
                                      const ConversationPlan& plan, const Runtime& runtime, ProgressReporter& progress) {
  ConversationTraining stage(config, data, plan);
  return run_stage(stage.parts(runtime), stage, progress);
}

}  // namespace nanochat
