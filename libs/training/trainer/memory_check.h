#pragma once
// Whether training on rows of model.sequence_len tokens fits into memory, before it is tried, and how many rows do.

#include <cstdint>

#include "distributed/communicator.h"
#include "model/config.h"
#include "model/memory.h"
#include "runtime/runtime.h"
#include "training/trainer/trainer_options.h"

namespace nanochat {

// What a pass over so many rows computes.
TrainingShape training_shape(const TrainerOptions& options, const GptConfig& model, std::int64_t rows, int compute_bytes,
                             bool gpu);

// Logs the estimate and the available memory. True if checkpoints can be saved in the background:
// options.async_save is set, and host memory also holds the copy. Throws ConfigError with a batch size that fits.
// Processes of one machine share its memory in equal parts. All call this before they allocate anything, since each waits until
// all have looked.
bool save_in_background(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                        std::int64_t device_batch_size, Communicator& communicator = alone());

// The micro-batch of at most `fits` rows: the largest divisor of the `rows` that a process computes in a step, or if these are
// not known (0), the largest power of two. At least 1.
std::int64_t largest_micro_batch(std::int64_t fits, std::int64_t rows);
// The rows of --device-batch-size auto: the largest micro-batch whose estimate fits the memory of every process. A resumed run
// keeps the number in its config.json if it still fits, since another one would round differently. Returns 1 if not even one row
// fits, which save_in_background() then refuses. All processes call this before they allocate anything.
std::int64_t choose_device_batch(const TrainerOptions& options, const GptConfig& model, const Runtime& runtime,
                                 Communicator& communicator = alone(), std::int64_t rows = 0);
// The same in a plan for so many ranks: for --memory-limit, otherwise for the memory of this machine. Throws ConfigError if not
// even one row fits, and if it is planned for a GPU whose memory is not known.
std::int64_t plan_device_batch(const RuntimeOptions& runtime, const GptConfig& model, const TrainingShape& shape, int ranks,
                               std::int64_t rows = 0);

}  // namespace nanochat
