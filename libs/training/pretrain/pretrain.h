#pragma once
// Pretraining: trains a base model on text or token shards and writes a run folder.

#include <string>
#include <vector>

#include "training/pretrain/pretrain_options.h"
#include "training/trainer/trainer.h"

namespace nanochat {

class ProgressReporter;

struct PretrainResult : TrainingResult {
  explicit PretrainResult(const TrainingResult& result) : TrainingResult(result) {}
  double validation_bpb() const { return score; }          // last measured value; NaN if never measured
  std::vector<std::string> samples;                        // prompt and continuation of the last samples
};

// Trains as the configuration says. Writes checkpoints before any evaluation that could fail, while training goes on; a
// save that fails ends training at the next step and harms no checkpoint before it. On an interrupt request it saves and
// returns. Throws ConfigError (options that do not fit together, or memory that will not do, with the
// batch size that does), DataError, CheckpointError, NumericalError (the last good checkpoint stands), IoError.
// Several processes give the same configuration each, and share the micro-batches of every step.
PretrainResult pretrain(const PretrainConfig& config, ProgressReporter& progress,
                        const std::vector<ScheduledScore>& scores = {}, Communicator& communicator = alone());

}  // namespace nanochat
