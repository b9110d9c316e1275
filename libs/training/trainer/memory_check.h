#pragma once
// Checks whether training fits into memory, before it starts.

#include <cstdint>

#include "model/config.h"
#include "training/trainer/runtime.h"
#include "training/trainer/trainer.h"

namespace nanochat {

// Logs the estimate and the available memory. True if checkpoints can be saved in the background:
// options.async_save is set, and host memory also holds the copy. Throws ConfigError with a batch size that fits.
bool save_in_background(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                        std::int64_t device_batch_size, std::int64_t sequence_len);

}  // namespace nanochat
