#pragma once
// Whether training on rows of model.sequence_len tokens fits into memory, before it is tried.

#include <cstdint>

#include "distributed/communicator.h"
#include "model/config.h"
#include "runtime/runtime.h"
#include "training/trainer/trainer_options.h"

namespace nanochat {

// Logs the estimate and the available memory. True if checkpoints can be saved in the background:
// options.async_save is set, and host memory also holds the copy. Throws ConfigError with a batch size that fits.
// Processes of one machine share its memory in equal parts. All call this before they allocate anything, since each waits until
// all have looked.
bool save_in_background(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                        std::int64_t device_batch_size, Communicator& communicator = alone());

}  // namespace nanochat
