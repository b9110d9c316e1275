#pragma once
// The loop of every training stage. run_stage() owns what must not differ between stages: model and optimizer, learning
// rates and clipping, steps until the horizon, checkpoints before anything that could fail, validation, metrics, progress,
// resuming, and stopping on an interrupt. A Stage is what the loop calls: what a step learns from, how the model is
// judged, and where the data stands. It knows nothing of the loop.
//
//   Pretraining stage(config);                                        // opens the data
//   const TrainingResult result = run_stage(stage.parts(), stage, progress);

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/gpt.h"
#include "distributed/communicator.h"
#include "optim/schedule.h"
#include "training/trainer/horizon.h"
#include "training/trainer/scheduled_scores.h"
#include "training/trainer/train_step.h"
#include "training/trainer/trainer_options.h"

namespace nanochat {

class OptionList;
class ProgressReporter;
class Tokenizer;

struct Learner {
  Gpt& model;
  Optimizer& optimizer;
};

// Values that a resumed run must share with the run that it continues when one of `options` has
// changed, and that OptionList cannot compare: the tokens of a step, the data wherever it is stored.
struct Invariant {
  std::string name;
  nlohmann::json value;
  std::vector<std::string> options;
};

// What a stage says of one optimizer step.
struct StepReport {
  double value = 0.0;       // shown, smoothed over steps, as TrainerParts::shown
  std::int64_t tokens = 0;  // positions trained on, by all processes
  std::int64_t supervised_tokens = 0;  // of them
  double seconds = 0.0;     // without waiting for data
  nlohmann::json metrics = nlohmann::json::object();  // for metrics.jsonl; the loop adds times and rates
  std::string summary;      // "bpb 1.2345 | norm 0.321"
};

struct Evaluation {
  double score = 0.0;  // lower is better
  nlohmann::json metrics = nlohmann::json::object();
  std::string summary;
};

// Where several processes train, all make the same calls in the same order, but for examine(), which rank 0 alone makes.
// Forward passes of which processes make different numbers belong in uneven_passes() (model/gpt.h), because the processes may
// share the weights; the loop calls examine() in it. What step() and evaluate() return or throw as NumericalError must be the same in all but for StepReport::seconds.
class Stage {
 public:
  virtual ~Stage() = default;
  // Step number `step`, from 0, with train_step() and these settings. Before that, weights of other processes may still be under
  // way (Optimizer::wait_for_weights()). Throws NumericalError when a number is not finite:
  // then nothing may have been applied. The data goes on.
  virtual StepReport step(Learner learner, std::int64_t step, const StepSettings& settings) = 0;
  // After `step` steps. nullopt when there is nothing to say, as after an interrupt.
  virtual std::optional<Evaluation> evaluate(Gpt& model, std::int64_t step) = 0;
  // What takes longer, every sample_interval steps and at the end: samples. Figures for metrics.jsonl.
  virtual nlohmann::json examine(Gpt&, std::int64_t) { return nlohmann::json::object(); }
  // Where the data stands after the last step, and back there; null is the beginning.
  virtual nlohmann::json position() const = 0;
  virtual void seek(const nlohmann::json& position) = 0;
};

// The optimizer's state of an earlier stage, from which a run that is not resumed continues: moments, momentum, and the number of
// steps that corrects AdamW's bias.
struct WarmStart {
  std::filesystem::path checkpoint;  // empty: the state begins at zero
  std::int64_t steps = 0;
};

// What the loop has to be told of a run.
struct TrainerParts {
  std::string stage;  // "pretrain": in training_state.json and on the progress bar
  std::string shown = "loss";  // name of StepReport::value
  std::string score = "bpb";  // name of Evaluation::score, as in validation_bpb and minimum_bpb
  TrainerOptions options;
  Runtime runtime;  // of select_training_runtime()
  GptConfig model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::int64_t device_batch_size = 0;  // rows of a micro-batch, each of model.sequence_len tokens
  Horizon horizon;
  std::int64_t scheduled_steps = 0;  // of the whole where the horizon is that of a trial; 0: horizon.steps
  LearningRateSchedule schedule = {};  // its shape; the loop sets num_iterations by the horizon
  bool muon_warmup = true;  // muon_momentum() of the step; false: 0.95 always
  std::optional<NorMuonSchedule> muon = {};  // of pretraining nanochat-2026-07: decides momentum and decay of the matrices
  std::vector<Invariant> invariants = {};
  std::function<void(OptionList&)> declare;  // the resolved configuration, which resuming compares
  std::function<void(Gpt&)> initialize;  // weights of a run that is not resumed
  WarmStart warm_start = {};
  std::string announcement;  // a line of what is to be trained
  std::vector<std::string> warnings = {};  // for the log of the run, before its first step
  std::vector<ScheduledScore> scores = {};  // asked of rank 0
  Communicator* communicator = &alone();  // with the other processes that train
};

struct TrainingResult {
  std::int64_t steps = 0;  // total number of steps done
  double score = 0.0;  // last measured value; NaN if never measured
  double minimum_score = 0.0;  // infinite if never measured
  double training_seconds = 0.0;  // inside steps, without validation, samples and checkpoints
  double tokens_per_second = 0.0;
  double checkpoint_seconds = 0.0;  // time that training waited for checkpoints
  std::int64_t parameters = 0;
  bool interrupted = false;
  std::filesystem::path checkpoint;  // the last one written
};

// Where to train, chosen before data is read: sets the number of threads. Throws ConfigError without --output-dir, and as
// select_runtime().
// Of several processes each gets a device and its share of the cores, in the precision that rank 0 has chosen.
Runtime select_training_runtime(const TrainerOptions& options, Communicator& communicator = alone());

// Trains until the horizon, or an interrupt. Loads or initializes; the run folder is made last, when nothing is left to be
// refused. A resumed run may differ in options that change nothing of what is learnt (Option::may_change), and have more
// steps; the log says in which. For one thread. Of several processes rank 0 alone owns the run folder, metrics, log.txt,
// scores and samples; the others log to log.rank-R.txt, and write their parts of checkpoints.
// Throws ConfigError (also for memory that will not do, with the batch size that does), CheckpointError, NumericalError
// naming the last good checkpoint, IoError likewise, and what the stage throws.
TrainingResult run_stage(TrainerParts parts, Stage& stage, ProgressReporter& progress);

}  // namespace nanochat
