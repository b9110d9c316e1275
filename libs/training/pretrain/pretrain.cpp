#include "training/pretrain/pretrain.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_saver.h"
#include "checkpoint/json_file.h"
#include "checkpoint/run_folder.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/options.h"
#include "core/progress.h"
#include "inference/generator.h"
#include "model/memory.h"
#include "ops/peak.h"
#include "optim/schedule.h"
#include "training/pretrain/training_data.h"
#include "training/trainer/train_step.h"

namespace nanochat {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// What a resumed run needs besides weights and optimizer; stored under "loop".
struct LoopState {
  double smooth_loss = 0.0;  // exponential average, for display
  double training_seconds = 0.0;
  std::int64_t skipped_steps = 0;  // batches that were not finite
  double validation_bpb = std::numeric_limits<double>::quiet_NaN();
  double minimum_bpb = std::numeric_limits<double>::infinity();

  nlohmann::json to_json() const {
    nlohmann::json json{{"smooth_loss", smooth_loss}, {"training_seconds", training_seconds}, {"skipped_steps", skipped_steps}};
    if (std::isfinite(minimum_bpb)) json.update({{"validation_bpb", validation_bpb}, {"minimum_bpb", minimum_bpb}});
    return json;
  }
  static LoopState from_json(const nlohmann::json& json) {
    LoopState state;
    state.smooth_loss = json.value("smooth_loss", state.smooth_loss);
    state.training_seconds = json.value("training_seconds", state.training_seconds);
    state.skipped_steps = json.value("skipped_steps", state.skipped_steps);
    state.validation_bpb = json.value("validation_bpb", state.validation_bpb);
    state.minimum_bpb = json.value("minimum_bpb", state.minimum_bpb);
    return state;
  }
};

std::int64_t horizon(const PretrainConfig& config, const GptConfig& model) {
  if (config.num_iterations >= 0) return config.num_iterations;
  const auto batch = static_cast<double>(config.total_batch_size);
  if (config.target_flops > 0) return std::llround(config.target_flops / (model.flops_per_token() * batch));
  if (config.target_param_data_ratio > 0) {
    return static_cast<std::int64_t>(config.target_param_data_ratio * static_cast<double>(model.parameter_count()) / batch);
  }
  throw ConfigError("no training horizon: give --num-iterations, --target-flops or --target-param-data-ratio");
}

void check_batch_sizes(const PretrainConfig& config) {
  const std::int64_t micro = config.device_batch_size * config.sequence_len;
  if (config.total_batch_size % micro == 0) return;
  throw ConfigError(fmt::format(
      "--total-batch-size {} is not a multiple of --device-batch-size {} x --sequence-len {} = {}; the nearest is {}",
      config.total_batch_size, config.device_batch_size, config.sequence_len, micro,
      std::max<std::int64_t>(1, (config.total_batch_size + micro / 2) / micro) * micro));
}

// True when there is also room for the copy that saves checkpoints while training goes on, which lies in host memory.
bool check_memory(const PretrainConfig& config, const GptConfig& model, const Runtime& runtime) {
  const int bytes = runtime.dtype == at::kFloat ? 4 : 2;
  const bool gpu = runtime.device.is_cuda();
  const MemoryEstimate need = estimate_training_memory(model, config.device_batch_size, config.sequence_len, bytes, gpu);
  const std::int64_t available = available_memory_bytes(runtime.device);
  log_info("memory: about {} for training, {} available", human_bytes(static_cast<double>(need.total())),
           human_bytes(static_cast<double>(available)));
  if (need.total() <= available) {
    const std::int64_t copy = model.parameter_count() * 4 + need.optimizer;
    const std::int64_t room = gpu ? available_memory_bytes() : available - need.total();
    if (!config.async_save || copy <= room) return config.async_save;
    log_info("training waits while checkpoints are saved: a copy of weights and optimizer state, {}, does not fit",
             human_bytes(static_cast<double>(copy)));
    return false;
  }
  const std::int64_t fits = largest_batch_that_fits(model, config.sequence_len, bytes, available, gpu);
  const std::string advice = fits > 0 ? fmt::format("--device-batch-size {} fits", fits)
                                      : "not even one row fits: lower --depth, --sequence-len or the vocabulary";
  throw ConfigError(fmt::format("training needs about {} ({} of it activations), but {} is available; {}",
                                human_bytes(static_cast<double>(need.total())),
                                human_bytes(static_cast<double>(need.activations)),
                                human_bytes(static_cast<double>(available)), advice));
}

class Pretraining {
 public:
  Pretraining(const PretrainConfig& config, ProgressReporter& progress)
      : config_(config),
        progress_(progress),
        runtime_(select_runtime(config.runtime)),
        data_(config),
        model_config_(config.model_config(data_.tokenizer()->vocab_size())) {
    check_batch_sizes(config);
    const bool background = check_memory(config, model_config_, runtime_);
    iterations_ = horizon(config, model_config_);
    model_.emplace(model_config_, runtime_.dtype, runtime_.device);
    optimizer_.emplace(model_->parameters(), model_config_.n_embd, config.optimizer_options());
    token_bytes_ = data_.tokenizer()->token_byte_lengths();
    if (const auto folder = checkpoint_to_resume()) {
      restore(*folder);
    } else {
      model_->init_weights(config.seed);
      loader_ = data_.training(nullptr);
    }
    peak_flops_ = ops::peak_flops(runtime_.device, runtime_.dtype);
    // Last, when nothing is left to be refused: a run folder in the way would block the corrected command.
    run_.emplace(config.output_dir, !config.resume.empty());
    if (checkpoint_.empty()) run_->write_config(resolved());
    // Figures of the step that a checkpoint stands at were measured after it was written: they come again.
    metrics_.emplace(run_->path(), config.resume.empty() ? std::nullopt : std::optional(step_ - 1));
    add_log_file(run_->path() / "log.txt");
    std::error_code ignored;
    if (std::filesystem::equivalent(checkpoint_, run_->checkpoint_path(step_), ignored)) saved_step_ = step_;
    saver_.emplace(background);
  }

  PretrainResult run() {
    announce();
    progress_.start("pretrain", iterations_, "steps");
    progress_.advance(step_);
    const LearningRateSchedule schedule{.num_iterations = iterations_,
                                        .warmup_ratio = config_.warmup_ratio,
                                        .warmdown_ratio = config_.warmdown_ratio,
                                        .final_lr_frac = config_.final_lr_frac};
    const std::int64_t first = step_;
    while (true) {
      const bool last = step_ >= iterations_;
      const auto due = [&](std::int64_t interval) { return last || (interval > 0 && step_ % interval == 0); };
      const bool stop = interrupt_requested();
      surface([this] { saver_->check(); });
      // A checkpoint comes first: what follows could fail, and would take the work of the steps with it.
      if ((due(config_.checkpoint_interval) && step_ > first) || (last && step_ == 0) || (stop && step_ > first)) save();
      if (stop) break;
      if (due(config_.eval_interval)) validate();
      if (step_ > 0 && due(config_.sample_interval)) sample();
      if (last || interrupt_requested()) break;
      while (!take_step(schedule) && !interrupt_requested()) {  // a skipped batch is no step: the next one stands in
      }
    }
    finish_saves();
    progress_.finish();
    PretrainResult result;
    result.steps = step_;
    result.validation_bpb = loop_.validation_bpb;
    result.minimum_validation_bpb = loop_.minimum_bpb;
    result.training_seconds = loop_.training_seconds;
    result.tokens_per_second = timed_seconds_ > 0 ? static_cast<double>(timed_tokens_) / timed_seconds_ : 0.0;
    result.parameters = model_config_.parameter_count();
    result.interrupted = step_ < iterations_;
    result.checkpoint = last_good();
    result.checkpoint_seconds = checkpoint_seconds_;
    result.samples = samples_;
    return result;
  }

 private:
  nlohmann::json resolved() const {
    PretrainConfig copy = config_;
    OptionList options;
    declare_pretrain_options(options, copy);
    return options.resolved();
  }

  void require_configuration(const nlohmann::json& stored, const std::filesystem::path& where) const {
    PretrainConfig copy = config_;
    OptionList options;
    declare_pretrain_options(options, copy);
    const auto differences = options.differences(stored);
    if (differences.empty()) return;
    throw ConfigError(fmt::format("--resume: {} was trained with another configuration: {}", where.string(),
                                  fmt::join(differences, "; ")));
  }

  // nullopt: training begins. So it does, too, in a run that ended before its first checkpoint.
  std::optional<std::filesystem::path> checkpoint_to_resume() const {
    if (config_.resume.empty()) return std::nullopt;
    if (config_.resume != "latest") return find_checkpoint(config_.resume);
    const std::filesystem::path& run = config_.output_dir;
    if (!std::filesystem::is_directory(run / "checkpoints") || !RunFolder::checkpoint_steps(run).empty()) {
      return find_checkpoint(run);
    }
    if (const auto stored = run / "config.json"; std::filesystem::exists(stored)) {
      require_configuration(read_json_object(stored), stored);
    }
    log_info("{}: this run has no checkpoint yet; it begins anew", run.string());
    return std::nullopt;
  }

  void restore(const std::filesystem::path& folder) {
    LoadedModel loaded = load_model(folder, runtime_.dtype);
    if (loaded.training_state.is_null()) {
      throw CheckpointError(fmt::format("{}: no training_state.json, so training cannot go on from it", folder.string()));
    }
    require_configuration(loaded.training_state.value("config", nlohmann::json::object()), folder);
    if (!(loaded.model->config() == model_config_)) {
      throw CheckpointError(fmt::format("{}: the model in the checkpoint has another shape than the options give", folder.string()));
    }
    auto& parameters = model_->parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].value.copy_(loaded.model->parameters()[i].value);
    model_->refresh_compute();
    NamedTensors state = optimizer_->state();
    load_optimizer_state(folder, state);
    try {
      step_ = loaded.training_state.at("step").get<std::int64_t>();
      optimizer_->set_steps(step_);
      loop_ = LoopState::from_json(loaded.training_state.at("loop"));
      loader_ = data_.training(loaded.training_state.at("loader"));
    } catch (const nlohmann::json::exception& error) {  // of another stage, or written by another program
      throw CheckpointError(fmt::format("{}: training_state.json is not one of pretraining: {}", folder.string(), error.what()));
    }
    checkpoint_ = folder;
  }

  void announce() const {
    log_info("{}", runtime_.description);
    log_info("model: depth {}, width {}, {} heads, vocabulary {}, {} parameters, {:.2e} FLOPs per token",
             model_config_.n_layer, model_config_.n_embd, model_config_.n_head, with_commas(model_config_.vocab_size),
             with_commas(model_config_.parameter_count()), model_config_.flops_per_token());
    log_info("training: {} steps of {} tokens ({} micro-batches of {} x {}), {} tokens in all, {:.1f} per parameter",
             with_commas(iterations_), with_commas(config_.total_batch_size), micro_batches(), config_.device_batch_size,
             config_.sequence_len, with_commas(iterations_ * config_.total_batch_size),
             static_cast<double>(iterations_ * config_.total_batch_size) / static_cast<double>(model_config_.parameter_count()));
    if (step_ > 0) log_info("resumed at step {} from {}", step_, checkpoint_.string());
  }

  std::int64_t micro_batches() const {
    return config_.total_batch_size / (config_.device_batch_size * config_.sequence_len);
  }

  // False when the batch was not finite and may be skipped.
  bool take_step(const LearningRateSchedule& schedule) {
    std::vector<TokenBatch> batches(static_cast<std::size_t>(micro_batches()));
    for (TokenBatch& batch : batches) {
      if (!loader_->next(batch)) throw DataError("the training data holds less than one batch; give more text");
    }
    StepSettings settings;
    settings.lr_multiplier = schedule.multiplier(step_);
    settings.muon_momentum = muon_momentum(step_);
    settings.grad_clip = config_.grad_clip;
    const auto start = Clock::now();
    StepResult result;
    try {
      result = train_step(*model_, *optimizer_, batches, settings, token_bytes_);
    } catch (const NumericalError& error) {
      if (loop_.skipped_steps < config_.skip_bad_steps) {
        ++loop_.skipped_steps;
        log_warn("step {}: {}; batch skipped, {} more may be", step_, error.what(), config_.skip_bad_steps - loop_.skipped_steps);
        metrics_->write(step_, {{"skipped_batch", error.what()}});
        return false;
      }
      try {
        saver_->wait();  // so that the checkpoint it may be writing counts
      } catch (const Error& failed) {
        log_error("{}", failed.what());
      }
      throw NumericalError(fmt::format("step {}: {}; the step was not applied, and {}", step_, error.what(), say_last_good()));
    }
    const double seconds = seconds_since(start);
    loop_.training_seconds += seconds;
    timed_seconds_ += seconds;
    timed_tokens_ += result.tokens;
    constexpr double kSmoothing = 0.9;
    loop_.smooth_loss = kSmoothing * loop_.smooth_loss + (1.0 - kSmoothing) * result.loss;
    const double smooth = loop_.smooth_loss / (1.0 - std::pow(kSmoothing, static_cast<double>(step_ + 1)));
    const double rate = static_cast<double>(result.tokens) / seconds;
    const double mfu = rate * model_config_.flops_per_token() / peak_flops_;
    metrics_->write(step_, {{"loss", result.loss},
                            {"bpb", result.bits_per_byte.value()},
                            {"grad_norm", result.grad_norm},
                            {"lr_multiplier", settings.lr_multiplier},
                            {"muon_momentum", settings.muon_momentum},
                            {"step_ms", 1e3 * seconds},
                            {"tokens_per_second", rate},
                            {"mfu", mfu},
                            {"epoch", loader_->epoch()},
                            {"tokens", (step_ + 1) * config_.total_batch_size}});
    const std::string line =
        fmt::format("loss {:.4f} | bpb {:.4f} | norm {:.3f} | {} tok/s | MFU {:.0f}%", smooth, result.bits_per_byte.value(),
                    result.grad_norm, with_commas(std::llround(rate)), 100.0 * mfu);
    if (step_ % config_.log_interval == 0) log_debug("step {:06d} | {}", step_, line);
    progress_.note(line);
    ++step_;
    progress_.advance(1);
    return true;
  }

  void save() {
    CheckpointContents contents;
    contents.config = &model_config_;
    contents.weights = model_weights(*model_);
    contents.optimizer = optimizer_->state();
    contents.tokenizer = data_.tokenizer().get();
    contents.training_state = {{"stage", "pretrain"},
                               {"step", step_},
                               {"loader", loader_->position()},
                               {"loop", loop_.to_json()},
                               {"config", resolved()}};
    const auto start = Clock::now();
    surface([&] {
      saver_->save(run_->checkpoint_path(step_), contents, [this, step = step_](const SaveTimes& times) {
        run_->mark_latest(step);
        run_->prune_checkpoints(config_.keep_last);
        log_debug("step {:06d} | checkpoint {} written in {:.0f} ms; training stood still for {:.0f} ms, {:.0f} of them for "
                  "the one before",
                  step, run_->checkpoint_path(step).string(), 1e3 * times.written,
                  1e3 * times.stalled, 1e3 * times.waited);
      });
    });
    checkpoint_seconds_ += seconds_since(start);
    saved_step_ = step_;
  }

  void finish_saves() {
    const auto start = Clock::now();
    surface([this] { saver_->wait(); });
    checkpoint_seconds_ += seconds_since(start);
  }

  // The last checkpoint that stands; empty when there is none.
  std::filesystem::path last_good() const {
    const std::filesystem::path saved = saver_->last_saved();
    return saved.empty() ? checkpoint_ : saved;
  }
  std::string say_last_good() const {
    const std::filesystem::path folder = last_good();
    return folder.empty() ? "there is no checkpoint yet" : "the last good checkpoint is " + folder.string();
  }

  // A failed save says from where training can go on.
  template <class Action>
  void surface(Action action) const {
    try {
      action();
    } catch (const IoError& error) {
      throw IoError(fmt::format("{}; {}", error.what(), say_last_good()));
    }
  }

  void validate() {
    const std::int64_t batch_tokens = config_.device_batch_size * config_.sequence_len;
    const std::int64_t batches = std::max<std::int64_t>(1, config_.eval_tokens / batch_tokens);
    const auto loader = data_.validation(config_.device_batch_size);
    const BitsPerByte bpb = evaluate_bits_per_byte(*model_, *loader, batches, token_bytes_);
    if (bpb.bytes == 0) return;  // interrupted before the first batch
    loop_.validation_bpb = bpb.value();
    // Equal: resumed after a kill between the best checkpoint and its mark.
    const bool best = loop_.validation_bpb <= loop_.minimum_bpb;
    loop_.minimum_bpb = std::min(loop_.minimum_bpb, loop_.validation_bpb);
    metrics_->write(step_, {{"validation_bpb", loop_.validation_bpb},
                            {"validation_tokens", bpb.tokens},
                            {"training_flops", model_config_.flops_per_token() *
                                                   static_cast<double>(step_ * config_.total_batch_size)},
                            {"training_seconds", loop_.training_seconds}});
    log_info("step {:06d} | validation bpb {:.4f} | {} of training", step_, loop_.validation_bpb,
             human_duration(loop_.training_seconds));
    if (!config_.keep_best || !best || step_ == 0) return;  // an untrained model is nothing to keep
    if (saved_step_ != step_) save();
    saver_->then([this, step = step_] {
      run_->mark_best(step);
      run_->prune_checkpoints(config_.keep_last);  // the best before
    });
  }

  void sample() {
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
    const auto generations = generate(*model_, prompts, options);
    for (std::size_t i = 0; i < generations.size(); ++i) {
      samples_.push_back(replace_invalid_utf8(texts[i] + tokenizer.decode(generations[i].ids)));
      log_info("step {:06d} | sample: {}", step_, samples_.back());
    }
    if (!samples_.empty()) metrics_->write(step_, {{"samples", fmt::format("{}", fmt::join(samples_, "\n"))}});
  }

  const PretrainConfig& config_;
  ProgressReporter& progress_;
  Runtime runtime_;
  TrainingData data_;
  GptConfig model_config_;
  std::optional<RunFolder> run_;
  std::optional<Gpt> model_;
  std::optional<Optimizer> optimizer_;
  std::unique_ptr<Loader> loader_;
  std::optional<MetricsWriter> metrics_;
  std::vector<std::int32_t> token_bytes_;
  std::vector<std::string> samples_;
  std::filesystem::path checkpoint_;  // resumed from; empty: none
  LoopState loop_;
  std::int64_t iterations_ = 0, step_ = 0, timed_tokens_ = 0;
  std::int64_t saved_step_ = -1;  // of the newest checkpoint, which may be being written
  double peak_flops_ = 1.0, timed_seconds_ = 0.0, checkpoint_seconds_ = 0.0;
  std::optional<CheckpointSaver> saver_;  // last: it waits for a save, which uses the rest
};

}  // namespace

PretrainResult pretrain(const PretrainConfig& config, ProgressReporter& progress) {
  if (config.output_dir.empty()) throw ConfigError("--output-dir is missing: name the folder of the run");
  Pretraining pretraining(config, progress);
  return pretraining.run();
}

}  // namespace nanochat
