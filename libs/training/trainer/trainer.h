#pragma once
// What every training stage does in the same way: steps until the horizon, checkpoints before anything that could
// fail, validation, metrics, progress, resuming, and stopping on an interrupt. A Stage gives the rest: what a step
// learns from and how the model is judged.

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
  double training_seconds = 0.0;  // inside the steps before
};

// What a resumed run has to have in common with the run that it continues when one of `options` has changed, which
// OptionList cannot tell: the number of tokens of a step, the data wherever they lie.
struct Invariant {
  std::string name;
  nlohmann::json value;
  std::vector<std::string> options;
};

// One optimizer step.
struct StepReport {
  double value = 0.0;       // shown, smoothed over steps, as TrainerParts::shown
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
  // Throws NumericalError when a number is not finite: then nothing may have been applied. The data goes on.
  virtual StepReport step(Learner learner, std::int64_t step) = 0;
  // nullopt when there is nothing to say, as after an interrupt.
  virtual std::optional<Evaluation> evaluate(Learner learner, std::int64_t step) = 0;
  // What takes longer, every sample_interval steps and at the end: samples. Figures for metrics.jsonl.
  virtual nlohmann::json examine(Learner, std::int64_t) { return nlohmann::json::object(); }
  // Where the data stands after the last step, and back there; null is the beginning.
  virtual nlohmann::json position() const = 0;
  virtual void seek(const nlohmann::json& position) = 0;
};

struct TrainerParts {
  std::string stage;              // "pretrain": in training_state.json and on the progress bar
  std::string shown = "loss";     // StepReport::value
  std::string score = "bpb";      // Evaluation::score, as validation_bpb and minimum_bpb
  TrainerOptions options;
  Runtime runtime;
  GptConfig model;
  std::shared_ptr<const Tokenizer> tokenizer;
  Horizon horizon;
  std::int64_t scheduled_steps = 0;           // of the whole where the horizon is that of a trial; 0: horizon.steps
  std::vector<Invariant> invariants = {};
  bool save_in_background = true;
  std::function<void(OptionList&)> declare;   // the resolved configuration, which resuming compares
  std::function<void(Gpt&)> initialize;       // weights of a run that is not resumed
  std::function<std::string()> announcement;  // a line of what is to be trained
  std::vector<ScheduledScore> scores = {};
};

struct TrainingResult {
  std::int64_t steps = 0;           // done in total
  double score = 0.0;               // last measured; NaN when never
  double minimum_score = 0.0;       // infinite when never
  double training_seconds = 0.0;    // inside steps, without validation, samples and checkpoints
  double tokens_per_second = 0.0;
  double checkpoint_seconds = 0.0;  // that training stood still for checkpoints
  std::int64_t parameters = 0;
  bool interrupted = false;
  std::filesystem::path checkpoint;  // the last one written
};

// A run of one stage. For one thread.
class Trainer {
 public:
  // Loads or initializes; the run folder is made last, when nothing is left to be refused. A resumed run may differ in
  // options that change nothing of what is learnt (Option::may_change), and have more steps; the log says in which.
  // `stage` must outlive it.
  // Throws ConfigError, CheckpointError, IoError.
  Trainer(TrainerParts parts, Stage& stage, ProgressReporter& progress);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // Until the horizon, or an interrupt. Throws NumericalError naming the last good checkpoint, IoError likewise, and
  // what the stage throws.
  TrainingResult run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
