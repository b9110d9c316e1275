#pragma once
// One optimizer step over several micro-batches.

#include <cstdint>
#include <string>
#include <vector>

#include "data/batch.h"
#include "model/gpt.h"
#include "optim/optimizer.h"
#include "training/trainer/bits_per_byte.h"

namespace nanochat {

struct StepSettings {
  double lr_multiplier = 1.0;
  double muon_momentum = 0.95;
  double grad_clip = 1.0;  // of the global norm; 0: none
};

struct StepResult {
  double loss = 0.0;           // mean over supervised tokens of every micro-batch, nats
  double grad_norm = 0.0;      // before clipping
  BitsPerByte bits_per_byte;   // of the training tokens
  std::int64_t tokens = 0;     // positions computed
};

// Gradients are those of the mean loss over the supervised tokens of all micro-batches together; with every token
// supervised that is the reference's mean of means. When the loss or the gradient norm is not finite nothing is applied
// and NumericalError names the first layer and tensor that is not.
StepResult train_step(Gpt& model, Optimizer& optimizer, const std::vector<TokenBatch>& micro_batches,
                      const StepSettings& settings, const std::vector<std::int32_t>& token_bytes);

}  // namespace nanochat
