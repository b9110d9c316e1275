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

// Trains with the given configuration. Checkpoints are saved before any evaluation that could fail, in the
// background. A failed save ends training at the next step and does not affect earlier checkpoints. On an interrupt
// request, saves and returns. Throws ConfigError (options that do not fit together, or too little memory, with a
// batch size that fits), DataError, CheckpointError, NumericalError (the last good checkpoint is kept), IoError.
PretrainResult pretrain(const PretrainConfig& config, ProgressReporter& progress,
                        const std::vector<ScheduledScore>& scores = {});

}  // namespace nanochat
