#include "training/trainer/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <limits>
#include <set>
#include <utility>

#include <ATen/ops/full.h>

#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_saver.h"
#include "checkpoint/json_file.h"
#include "checkpoint/run_folder.h"
#include "core/elapsed.h"
#include "core/errors.h"
#include "core/folder_lock.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/options.h"
#include "core/progress.h"
#include "distributed/agree.h"
#include "distributed/communicator.h"
#include "ops/device.h"
#include "ops/peak.h"
#include "runtime/environment.h"
#include "training/trainer/memory_check.h"
#include "training/trainer/same_everywhere.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// What a resumed run needs besides weights and optimizer; stored under "loop".
struct LoopState {
  double smooth = 0.0;  // exponential average of what is shown
  double training_seconds = 0.0;
  std::int64_t skipped_steps = 0;  // batches that were not finite
  double score = std::numeric_limits<double>::quiet_NaN();
  double minimum_score = std::numeric_limits<double>::infinity();

  nlohmann::json to_json(const std::string& shown, const std::string& score_name) const {
    nlohmann::json json{{"smooth_" + shown, smooth}, {"training_seconds", training_seconds}, {"skipped_steps", skipped_steps}};
    if (std::isfinite(minimum_score))
      json.update({{"validation_" + score_name, score}, {"minimum_" + score_name, minimum_score}});
    return json;
  }
  static LoopState from_json(const nlohmann::json& json, const std::string& shown, const std::string& score_name) {
    LoopState state;
    state.smooth = json.value("smooth_" + shown, state.smooth);
    state.training_seconds = json.value("training_seconds", state.training_seconds);
    state.skipped_steps = json.value("skipped_steps", state.skipped_steps);
    state.score = json.value("validation_" + score_name, state.score);
    state.minimum_score = json.value("minimum_" + score_name, state.minimum_score);
    return state;
  }
};

// Before anything is written.
TrainerParts checked(TrainerParts parts) {
  if (parts.options.fp8) require_fp8(parts.runtime);
  return parts;
}

// One call of run_stage().
struct Loop {
  Loop(TrainerParts given, Stage& given_stage, ProgressReporter& given_progress)
      : parts(checked(std::move(given))), communicator(*parts.communicator), stage(given_stage), progress(given_progress),
        background(save_in_background(parts.options, parts.model, parts.runtime, parts.device_batch_size, communicator)),
        lock(lock_run()), model(parts.model, parts.runtime.dtype, parts.runtime.device, Purpose::kTraining,
                                shards_weights() ? Residency::kShared : Residency::kWhole),
        shards(make_shards()),
        optimizer(model.parameters(), parts.model.n_embd, optimizer_options(), communicator, shards.get()) {
    model.set_recompute(parts.options.recompute);
    model.set_fp8(parts.options.fp8);
    if (const auto folder = checkpoint_to_resume()) {
      restore(*folder);
    } else {
      parts.initialize(model);
      if (!parts.warm_start.checkpoint.empty()) {
        read_optimizer_state(parts.warm_start.checkpoint);
        optimizer.set_steps(parts.warm_start.steps);
      }
      stage.seek(nullptr);
    }
    peak.emplace(parts.runtime.device, parts.runtime.dtype);
    communicator.barrier();  // until here the others may read what is there
    if (communicator.is_root()) open_run();
    communicator.barrier();
    const fs::path& folder = parts.options.output_dir;
    add_log_file(folder / (communicator.is_root() ? "log.txt" : fmt::format("log.rank-{}.txt", communicator.rank())));
    std::error_code ignored;
    if (fs::equivalent(checkpoint, RunFolder::checkpoint_path(folder, step), ignored)) saved_step = step;
    board = communicator.make_message_board();
    saver.emplace(background);
  }

  std::unique_ptr<FolderLock> lock_run() const {
    if (!communicator.is_root()) return nullptr;
    return std::make_unique<FolderLock>(parts.options.output_dir, parts.stage);
  }

  bool shards_weights() const { return parts.options.shard == "full" && !communicator.alone(); }
  std::unique_ptr<ShardedWeights> make_shards() {
    if (!shards_weights()) return nullptr;
    return std::make_unique<ShardedWeights>(model, communicator, optimizer_options().gradient_comm_dtype);
  }

  // Rank 0's, where each would measure for itself which precision is the faster one.
  OptimizerOptions optimizer_options() const {
    OptimizerOptions options = parts.options.optimizer_options(parts.runtime, parts.model);
    options.muon.dtype = options.normuon.dtype = same_dtype(communicator, options.muon.dtype);
    return options;
  }

  // Of rank 0.
  void open_run() {
    run_folder.emplace(parts.options.output_dir, !parts.options.resume.empty());
    if (checkpoint.empty() || !changes.empty()) run_folder->write_config(resolved());
    // Figures of the step that a checkpoint stands at were measured after it was written: they come again.
    metrics.emplace(run_folder->path(), parts.options.resume.empty() ? std::nullopt : std::optional(step - 1));
  }

  void write_metrics(const nlohmann::json& values) {
    if (metrics) metrics->write(step, values);
  }

  nlohmann::json invariants() const {
    nlohmann::json json = nlohmann::json::object();
    for (const Invariant& invariant : parts.invariants) json[invariant.name] = invariant.value;
    return json;
  }

  nlohmann::json resolved() const {
    OptionList options;
    parts.declare(options);
    return options.resolved();
  }

  std::int64_t scheduled_steps() const { return parts.scheduled_steps > 0 ? parts.scheduled_steps : parts.horizon.steps; }

  // What differs from the run that is resumed: throws for what cannot, keeps in `changes` what may. `state`: the
  // checkpoint's, or null.
  void compare_configuration(const nlohmann::json& stored, const nlohmann::json& state, const fs::path& where) {
    OptionList options;
    parts.declare(options);
    std::vector<std::string> refused;
    std::set<std::string> changed;
    for (const OptionDifference& difference : options.differences(stored)) {
      (difference.changeable ? changes : refused).push_back(difference.text);
      if (difference.changeable) changed.insert(difference.name);
    }
    if (state.is_object()) {
      const nlohmann::json invariants = state.value("invariants", nlohmann::json::object());
      for (const Invariant& invariant : parts.invariants) {
        const bool concerned = !communicator.alone() ||
                               std::any_of(invariant.options.begin(), invariant.options.end(),
                                           [&](const std::string& name) { return changed.contains(name); });
        const nlohmann::json before = invariants.value(invariant.name, nlohmann::json());
        if (!concerned || before == invariant.value) continue;
        refused.push_back(fmt::format("{}: {} → {} (by {})", invariant.name, before.dump(), invariant.value.dump(),
                                      fmt::join(invariant.options, ", ")));
      }
      const std::int64_t done = state.value("step", std::int64_t{0}), before = state.value("scheduled_steps", done);
      if (scheduled_steps() < before) {
        refused.push_back(fmt::format("steps of the whole: {} → {}; there can be more, not fewer", before, scheduled_steps()));
      }
    }
    if (refused.empty()) return;
    for (std::string& text : changes) {  // it may be one of these that makes the number of steps another
      refused.push_back(std::move(text) + " (which may change)");
    }
    throw ConfigError(fmt::format("--resume: {} was trained with another configuration: {}", where.string(),
                                  fmt::join(refused, "; ")));
  }

  // What rank 0 finds, in every process.
  std::optional<fs::path> checkpoint_to_resume() {
    std::optional<fs::path> found;
    if (communicator.is_root()) found = find_checkpoint_to_resume();
    const std::string path = communicator.share_text(found ? found->string() : "");
    return path.empty() ? std::nullopt : std::optional(fs::path(path));
  }

  // nullopt: training begins. So it does, too, in a run that ended before its first checkpoint.
  std::optional<fs::path> find_checkpoint_to_resume() {
    const std::string& resume = parts.options.resume;
    if (resume.empty()) return std::nullopt;
    if (resume != "latest") return find_checkpoint(resume);
    const fs::path& run = parts.options.output_dir;
    if (!fs::is_directory(run / "checkpoints") || !RunFolder::checkpoint_steps(run).empty()) return find_checkpoint(run);
    if (const auto stored = run / "config.json"; fs::exists(stored)) {
      compare_configuration(read_json_object(stored), nullptr, stored);
    }
    log_info("{}: this run has no checkpoint yet; it begins anew", run.string());
    return std::nullopt;
  }

  void read_optimizer_state(const fs::path& folder) {
    NamedTensors tensors = optimizer.state();
    load_optimizer_state(folder, tensors, communicator.alone() ? std::vector<std::int64_t>() : optimizer.state_first_rows());
  }

  void restore(const fs::path& folder) {
    const StoredModel stored = open_model(folder);
    const nlohmann::json& state = stored.training_state;
    if (state.is_null()) {
      throw CheckpointError(fmt::format("{}: no training_state.json, so training cannot go on from it", folder.string()));
    }
    if (const std::string found = state.value("stage", parts.stage); found != parts.stage) {
      throw ConfigError(fmt::format("--resume: {} is a checkpoint of {}, not of {}; to begin from it, give it as --base-model",
                                    folder.string(), found, parts.stage));
    }
    compare_configuration(state.value("config", nlohmann::json::object()), state, folder);
    if (!(stored.config == parts.model)) {
      throw CheckpointError(fmt::format("{}: the model in the checkpoint has another shape than the options give",
                                        folder.string()));
    }
    read_weights(stored, model);
    read_optimizer_state(folder);
    try {
      step = state.at("step").get<std::int64_t>();
      optimizer.set_steps(state.value("optimizer_steps", step));
      loop = LoopState::from_json(state.at("loop"), parts.shown, parts.score);
      stage.seek(state.at("loader"));
    } catch (const nlohmann::json::exception& error) {  // written by another program
      throw CheckpointError(fmt::format("{}: training_state.json is not one of {}: {}", folder.string(), parts.stage,
                                        error.what()));
    }
    checkpoint = folder;
    const std::string device = state.value("environment", nlohmann::json::object()).value("device", parts.runtime.description);
    if (device != parts.runtime.description) computed_before = device;
  }

  void announce() const {
    for (const std::string& warning : parts.warnings) log_warn("{}", warning);
    log_info("{}", parts.runtime.description);
    if (!communicator.alone())
      log_info("process {} of {}, which share {}", communicator.rank(), communicator.size(),
               shards ? "weights, gradients and the optimizer's state" : "the optimizer's state");
    log_info("model: depth {}, width {}, {} heads, vocabulary {}, {} parameters, {:.2e} FLOPs per token", parts.model.n_layer,
             parts.model.n_embd, parts.model.n_head, with_commas(parts.model.vocab_size),
             with_commas(parts.model.parameter_count()), parts.model.flops_per_token());
    log_info("{}", parts.announcement);
    if (parts.options.recompute) log_info("activation recomputation: layers run forward again in the backward pass");
    if (parts.options.fp8) log_info("products in 8 bits: matrices of the layers, forward and backward");
    if (parts.options.deterministic) log_info("deterministic: a repeated training has the same weights, bit for bit");
    if (!checkpoint.empty()) log_info("resumed at step {} from {}", step, checkpoint.string());
    if (!changes.empty()) log_info("resumed with other options: {}", fmt::join(changes, "; "));
    if (!computed_before.empty())
      log_info("computed until here by {}; weights and optimizer state are float32 in every precision", computed_before);
  }

  TrainingResult run() {
    announce();
    progress.start(parts.stage, expected_steps(), "steps");
    progress.advance(step);
    const TrainerOptions& options = parts.options;
    const std::int64_t first = step;
    while (true) {
      const bool last = reached();
      const auto due = [&](std::int64_t interval) { return (last && interval != 0) || (interval > 0 && step % interval == 0); };
      const bool stop = interrupted();
      // A checkpoint comes first: what follows could fail, and would take the work of the steps with it.
      const bool wanted = (due(options.checkpoint_interval) && step > first) || (last && step == 0) || (stop && step > first);
      if (wanted && saved_step != step) save();
      if (stop) break;
      if (due(options.eval_interval)) validate();
      if (step > 0 && due(options.sample_interval)) examine();
      ask_scores(last);
      if (last) break;
      if (interrupted()) continue;  // and save
      while (!take_step() && !interrupted()) {  // a skipped batch is no step: the next one stands in
      }
    }
    optimizer.wait_for_weights();
    finish_saves();
    progress.finish();
    return {.steps = step,
            .score = loop.score,
            .minimum_score = loop.minimum_score,
            .training_seconds = loop.training_seconds,
            .tokens_per_second = timed_seconds > 0 ? static_cast<double>(timed_tokens) / timed_seconds : 0.0,
            .checkpoint_seconds = checkpoint_seconds,
            .parameters = parts.model.parameter_count(),
            .interrupted = !reached(),
            .checkpoint = last_good()};
  }

  // Whether any process was asked to stop. Throws, in all of them, when a checkpoint could not be written.
  bool interrupted() {
    std::exception_ptr failed;
    try {
      saver->check();
    } catch (const IoError&) {
      failed = std::current_exception();
    }
    const Agreement now = agree(communicator, failed                  ? RankStatus::kFailedSave
                                              : interrupt_requested() ? RankStatus::kInterrupted
                                                                      : RankStatus::kFine);
    if (now.status == RankStatus::kFailedSave) {
      surface([&] {
        if (failed) std::rethrow_exception(failed);
        saver->wait();  // this process hears of it a little later
        throw IoError(fmt::format("rank {} could not write its part of a checkpoint", now.rank));
      });
    }
    return now.status == RankStatus::kInterrupted;
  }

  bool reached() const { return parts.horizon.reached(step, loop.training_seconds); }
  std::int64_t expected_steps() const { return parts.horizon.expected_steps(step, loop.training_seconds); }

  StepSettings step_settings() const {
    constexpr double kMomentum = 0.95;
    LearningRateSchedule schedule = parts.schedule;
    schedule.num_iterations = parts.scheduled_steps > 0 ? parts.scheduled_steps : expected_steps();
    StepSettings settings{.lr_multiplier = schedule.multiplier(step),
                          .muon_momentum = parts.muon_warmup ? muon_momentum(step) : kMomentum,
                          .grad_clip = parts.options.grad_clip};
    if (parts.muon) {
      NorMuonSchedule muon = *parts.muon;
      muon.num_iterations = schedule.num_iterations;
      settings.muon_momentum = muon.momentum(step);
      settings.muon_weight_decay = muon.decay(step);
    }
    return settings;
  }

  // False when the batch was not finite and may be skipped.
  bool take_step() {
    StepReport report;
    try {
      report = stage.step({model, optimizer}, step, step_settings());
    } catch (const NumericalError& error) {
      skip_or_fail(error);
      return false;
    }
    if (parts.horizon.seconds > 0.0) report.seconds = largest(report.seconds);  // all must see the same end
    loop.training_seconds += report.seconds;
    timed_seconds += report.seconds;
    timed_tokens += report.tokens;
    constexpr double kSmoothing = 0.9;
    loop.smooth = kSmoothing * loop.smooth + (1.0 - kSmoothing) * report.value;
    const double smooth = loop.smooth / (1.0 - std::pow(kSmoothing, static_cast<double>(step + 1)));
    const double rate = static_cast<double>(report.tokens) / report.seconds;
    const double mfu = peak->utilization(rate * parts.model.flops_per_token() / communicator.size());
    report.metrics.update({{"step_ms", 1e3 * report.seconds}, {"tokens_per_second", rate}, {"mfu", mfu}});
    std::string sent;
    if (!communicator.alone()) {
      const std::int64_t bytes = communicator.bytes_sent() - std::exchange(sent_before, communicator.bytes_sent());
      report.metrics["sent_bytes"] = bytes;
      sent = fmt::format(" | sent {}", human_bytes(static_cast<double>(bytes)));
    }
    write_metrics(report.metrics);
    const std::string line = fmt::format("{} {:.4f} | {} | {} tok/s | MFU {:.0f}%{}", parts.shown, smooth, report.summary,
                                         with_commas(std::llround(rate)), 100.0 * mfu, sent);
    if (step % parts.options.log_interval == 0) log_debug("step {:06d} | {}", step, line);
    progress.note(line);
    ++step;
    progress.set_total(expected_steps());
    progress.advance(1);
    return true;
  }

  double largest(double mine) const {
    at::Tensor largest = at::full({1}, mine, at::kDouble);
    communicator.all_reduce(largest, ReduceOp::kMax).wait();
    return *largest.const_data_ptr<double>();
  }

  void skip_or_fail(const NumericalError& error) {
    const std::int64_t allowed = parts.options.skip_bad_steps;
    if (loop.skipped_steps < allowed) {
      ++loop.skipped_steps;
      log_warn("step {}: {}; batch skipped, {} more may be", step, error.what(), allowed - loop.skipped_steps);
      write_metrics({{"skipped_batch", error.what()}});
      return;
    }
    try {
      saver->wait();  // so that the checkpoint it may be writing counts
    } catch (const Error& failed) {
      log_error("{}", failed.what());
    }
    throw NumericalError(fmt::format("step {}: {}; the step was not applied, and {}", step, error.what(), say_last_good()));
  }

  void save() {
    optimizer.gather_values();
    CheckpointContents contents;
    contents.config = &parts.model;
    if (shards) {
      contents.weights = shards->gather_values();
      contents.weights_are_copies = true;
    } else if (communicator.is_root()) {
      contents.weights = model_weights(model);
    }
    contents.optimizer = optimizer.state();
    contents.shared = {board.get(), communicator.rank(), communicator.size(), saves++};
    contents.tokenizer = parts.tokenizer.get();
    contents.training_state = {{"stage", parts.stage},
                               {"step", step},
                               {"loader", stage.position()},
                               {"loop", loop.to_json(parts.shown, parts.score)},
                               {"config", resolved()},
                               {"scheduled_steps", scheduled_steps()},
                               {"optimizer_steps", optimizer.steps()},
                               {"invariants", invariants()},
                               {"environment", describe_environment(parts.runtime)}};
    const auto start = Clock::now();
    surface([&] {
      const fs::path folder = RunFolder::checkpoint_path(parts.options.output_dir, step);
      saver->save(folder, contents, [this, folder, at = step](const SaveTimes& times) {
        if (run_folder) run_folder->mark_latest(at);
        if (run_folder) run_folder->prune_checkpoints(parts.options.keep_last);
        log_debug(
            "step {:06d} | checkpoint {} written in {:.0f} ms; training stood still for {:.0f} ms, {:.0f} of them for "
            "the one before",
            at, folder.string(), 1e3 * times.written, 1e3 * times.stalled, 1e3 * times.waited);
      });
    });
    checkpoint_seconds += seconds_since(start);
    saved_step = step;
  }

  void finish_saves() {
    const auto start = Clock::now();
    surface([this] { saver->wait(); });
    checkpoint_seconds += seconds_since(start);
  }

  // The last checkpoint that stands; empty when there is none.
  fs::path last_good() const {
    const fs::path saved = saver->last_saved();
    return saved.empty() ? checkpoint : saved;
  }
  std::string say_last_good() const {
    const fs::path folder = last_good();
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
    optimizer.wait_for_weights();
    std::optional<Evaluation> evaluation = stage.evaluate(model, step);
    if (!evaluation) return;
    loop.score = evaluation->score;
    // Equal: resumed after a kill between the best checkpoint and its mark.
    const bool best = loop.score <= loop.minimum_score;
    loop.minimum_score = std::min(loop.minimum_score, loop.score);
    evaluation->metrics.update({{"validation_" + parts.score, loop.score}, {"training_seconds", loop.training_seconds}});
    write_metrics(evaluation->metrics);
    log_info("step {:06d} | {} | {} of training", step, evaluation->summary, human_duration(loop.training_seconds));
    if (!parts.options.keep_best || !best || step == 0) return;  // an untrained model is nothing to keep
    if (saved_step != step) save();
    if (!run_folder) return;
    saver->then([this, at = step] {
      run_folder->mark_best(at);
      run_folder->prune_checkpoints(parts.options.keep_last);  // the best before
    });
  }

  // What rank 0 does with the model while the others wait, or send it their weights; they may for hours.
  template <class Action>
  void at_root(Action action) {
    uneven_passes(model, [&] {
      if (communicator.is_root()) action();
      return true;
    });
    communicator.barrier();
  }

  void examine() {
    optimizer.wait_for_weights();
    at_root([this] {
      const nlohmann::json found = stage.examine(model, step);
      if (!found.empty()) metrics->write(step, found);
    });
  }

  // They take long, and run code that has nothing to do with training: the work of the steps is on disk before.
  void ask_scores(bool last) {
    for (const ScheduledScore& score : parts.scores) {
      if (!score.due(step, last) || interrupted()) continue;
      if (saved_step != step) save();
      finish_saves();
      optimizer.wait_for_weights();
      at_root([&] {
        const nlohmann::json found = score.ask(model, *parts.tokenizer);
        if (!found.empty() && !interrupt_requested()) metrics->write(step, found);  // what was cut short says nothing
      });
    }
  }

  TrainerParts parts;
  Communicator& communicator;
  Stage& stage;
  ProgressReporter& progress;
  bool background;  // whether training goes on while checkpoints are written
  std::unique_ptr<FolderLock> lock;  // rank 0's, before anything that reads or writes the run
  Gpt model;
  std::unique_ptr<ShardedWeights> shards;  // null where every process has all weights
  Optimizer optimizer;
  std::optional<RunFolder> run_folder;  // rank 0's, as are the metrics
  std::optional<MetricsWriter> metrics;
  fs::path checkpoint;  // resumed from; empty: none
  std::vector<std::string> changes;  // of its options
  std::string computed_before;       // by another device, or in another precision; empty: no
  LoopState loop;
  std::int64_t step = 0, timed_tokens = 0;
  std::int64_t saves = 0, sent_before = 0;
  std::int64_t saved_step = -1;  // of the newest checkpoint, which may be being written
  double timed_seconds = 0.0, checkpoint_seconds = 0.0;
  std::optional<ops::PeakRate> peak;
  std::unique_ptr<MessageBoard> board;   // the saver's
  std::optional<CheckpointSaver> saver;  // last: it waits for a save, which uses the rest
};

}  // namespace

Runtime select_training_runtime(const TrainerOptions& options, Communicator& communicator) {
  if (options.output_dir.empty()) throw ConfigError("--output-dir is missing: name the folder of the run");
  Runtime runtime = select_runtime(options.runtime, Workload::kTraining,
                                   {communicator.local_rank(), communicator.local_size()});
  set_dtype(runtime, same_dtype(communicator, runtime.dtype));
  return runtime;
}

TrainingResult run_stage(TrainerParts parts, Stage& stage, ProgressReporter& progress) {
  const ops::DeterministicScope deterministic(parts.options.deterministic && parts.runtime.device.is_cuda());
  Loop loop(std::move(parts), stage, progress);
  return loop.run();
}

}  // namespace nanochat
