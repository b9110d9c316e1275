#pragma once
// Whether training on rows of model.sequence_len tokens fits into memory, before it is tried.

#include <cstdint>

#include "model/config.h"
#include "runtime/runtime.h"
#include "training/trainer/trainer_options.h"

namespace nanochat {

// Logs the estimate and what is there. True when checkpoints shall be saved while training goes on: options.async_save,
// and there is also room for the copy, which lies in host memory. Throws ConfigError with the batch size that does fit.
bool save_in_background(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                        std::int64_t device_batch_size);

}  // namespace nanochat
