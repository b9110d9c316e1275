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

// Trains as configured. Saves a checkpoint before each evaluation, in the background. A failed save ends training at the next
// step and does not affect earlier checkpoints. On an interrupt request it saves and returns. Throws ConfigError (contradictory
// options, or too little memory, with the batch size that fits), DataError, CheckpointError, NumericalError (the last
// checkpoint is good) and IoError. With several processes, all must have the same configuration; they share the micro-batches
// of every step.
PretrainResult pretrain(const PretrainConfig& config, ProgressReporter& progress,
                        const std::vector<ScheduledScore>& scores = {}, Communicator& communicator = alone());

}  // namespace nanochat
