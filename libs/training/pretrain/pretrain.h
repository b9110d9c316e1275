#pragma once
// Pretraining: text or token shards to a base model, in a run folder.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "training/pretrain/pretrain_options.h"

namespace nanochat {

class ProgressReporter;

struct PretrainResult {
  std::int64_t steps = 0;                // done in total
  double validation_bpb = 0.0;           // last measured; NaN when never
  double minimum_validation_bpb = 0.0;
  double training_seconds = 0.0;         // inside steps, without validation, samples and checkpoints
  double tokens_per_second = 0.0;
  double checkpoint_seconds = 0.0;       // that training stood still for checkpoints
  std::int64_t parameters = 0;
  bool interrupted = false;
  std::filesystem::path checkpoint;      // the last one written
  std::vector<std::string> samples;      // prompt and continuation, of the last time
};

// Trains as the configuration says. Writes checkpoints before any evaluation that could fail, while training goes on; a
// save that fails ends training at the next step and harms no checkpoint before it. On an interrupt request it saves and
// returns. Throws ConfigError (options that do not fit together, or memory that will not do, with the
// batch size that does), DataError, CheckpointError, NumericalError (the last good checkpoint stands), IoError.
PretrainResult pretrain(const PretrainConfig& config, ProgressReporter& progress);

}  // namespace nanochat
