#pragma once
// The common part of every training stage: steps until the horizon, checkpoints before
// anything that could fail, validation, metrics, progress, resuming, and stopping on an
// interrupt. A Stage provides the rest: what a step learns from and how the model is scored.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/gpt.h"
#include "training/trainer/horizon.h"
#include "training/trainer/scheduled_scores.h"
#include "training/trainer/trainer_options.h"

namespace nanochat {

class OptionList;
class ProgressReporter;
class Tokenizer;

struct Learner {
  Gpt& model;
  Optimizer& optimizer;
  double training_seconds = 0.0;  // time inside earlier steps
};

// Values that a resumed run must share with the run that it continues when one of `options` has
// changed, and that OptionList cannot compare: the tokens of a step, the data wherever it is stored.
struct Invariant {
  std::string name;
  nlohmann::json value;
  std::vector<std::string> options;
};

// One optimizer step.
struct StepReport {
  double value = 0.0;       // displayed value, smoothed over steps; see TrainerParts::shown
  std::int64_t tokens = 0;  // positions trained on
  double seconds = 0.0;     // without waiting for data
  nlohmann::json metrics = nlohmann::json::object();  // for metrics.jsonl; the trainer adds times and rates
  std::string summary;      // "bpb 1.2345 | norm 0.321"
};

struct Evaluation {
  double score = 0.0;  // lower is better
  nlohmann::json metrics = nlohmann::json::object();
  std::string summary;
};

class Stage {
 public:
  virtual ~Stage() = default;
  // Throws NumericalError if a number is not finite; then nothing may have been applied. The data continues.
  virtual StepReport step(Learner learner, std::int64_t step) = 0;
  // nullopt if there is no result, for example after an interrupt.
  virtual std::optional<Evaluation> evaluate(Learner learner, std::int64_t step) = 0;
  // Slow work such as samples, every sample_interval steps and at the end. Returns values for metrics.jsonl.
  virtual nlohmann::json examine(Learner, std::int64_t) { return nlohmann::json::object(); }
  // The position in the data after the last step, and setting it again; null is the beginning.
  virtual nlohmann::json position() const = 0;
  virtual void seek(const nlohmann::json& position) = 0;
};

struct TrainerParts {
  std::string stage;              // "pretrain": in training_state.json and on the progress bar
  std::string shown = "loss";     // name of StepReport::value
  std::string score = "bpb";      // name of Evaluation::score, as in validation_bpb and minimum_bpb
  TrainerOptions options;
  Runtime runtime;
  GptConfig model;
  std::shared_ptr<const Tokenizer> tokenizer;
  Horizon horizon;
  std::int64_t scheduled_steps = 0;           // of the whole schedule if the horizon is that of a trial; 0: horizon.steps
  std::vector<Invariant> invariants = {};
  bool save_in_background = true;
  std::function<void(OptionList&)> declare;   // declares the resolved configuration, which resuming compares
  std::function<void(Gpt&)> initialize;       // sets the weights of a run that is not resumed
  std::function<std::string()> announcement;  // one line that describes the training
  std::vector<ScheduledScore> scores = {};
};

struct TrainingResult {
  std::int64_t steps = 0;           // total number of steps done
  double score = 0.0;               // last measured value; NaN if never measured
  double minimum_score = 0.0;       // infinite if never measured
  double training_seconds = 0.0;    // inside steps, without validation, samples and checkpoints
  double tokens_per_second = 0.0;
  double checkpoint_seconds = 0.0;  // time that training waited for checkpoints
  std::int64_t parameters = 0;
  bool interrupted = false;
  std::filesystem::path checkpoint;  // the last one written
};

// A run of one stage. For one thread.
class Trainer {
 public:
  // Loads or initializes the model. The run folder is created last, after all
  // checks. A resumed run may differ in options that do not affect what is learned
  // (Option::may_change) and may have more steps; the log lists the differences.
  // `stage` must outlive this object. Throws ConfigError, CheckpointError, IoError.
  Trainer(TrainerParts parts, Stage& stage, ProgressReporter& progress);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // Runs until the horizon or an interrupt. Throws NumericalError with the
  // last good checkpoint, IoError likewise, and what the stage throws.
  TrainingResult run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
