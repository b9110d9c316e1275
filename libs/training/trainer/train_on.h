#pragma once
// A step over batches of a loader, and its report; shared by pretraining, midtraining and SFT.

#include <cstdint>
#include <vector>

#include "data/batches/batch.h"
#include "training/trainer/train_step.h"
#include "training/trainer/trainer.h"

namespace nanochat {

// train_step() with its time and values for metrics.jsonl. Throws NumericalError.
StepReport train_on(Learner learner, const std::vector<TokenBatch>& batches, const StepSettings& settings,
                    const std::vector<std::int32_t>& token_bytes);

}  // namespace nanochat
