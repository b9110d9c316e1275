#pragma once
// One optimizer step over several micro-batches.

#include <cstdint>
#include <vector>

#include "data/batches/batch.h"
#include "model/gpt.h"
#include "optim/optimizer.h"
#include "training/trainer/bits_per_byte.h"

namespace nanochat {

struct StepSettings {
  double lr_multiplier = 1.0;
  double muon_momentum = 0.95;
  double muon_weight_decay = 0.0;  // of the matrices; only for nanochat-2026-07
  double grad_clip = 1.0;  // maximum global norm; 0: no clipping
};

struct StepResult {
  double loss = 0.0;           // nats: mean over supervised tokens of every micro-batch, or sum of weights * losses
  double grad_norm = 0.0;      // before clipping
  BitsPerByte bits_per_byte;   // of the training tokens
  std::int64_t tokens = 0;     // positions computed
  std::int64_t supervised_tokens = 0;  // of batches without weights
  double forward_backward_seconds = 0.0;  // until the losses were there
};

// Zeroes the gradients, passes every micro-batch forward and backward, clips and applies the optimizer. Gradients are
// those of the mean loss over the supervised tokens of all micro-batches together (with every token supervised that is
// the reference's mean of means), or of the sum of weights * losses where batches have weights. Losses are read after the
// last micro-batch, so a GPU does not stand still between two of them. When the loss or the gradient norm is not finite
// nothing is applied and NumericalError names the first layer and tensor that is not.
// Where the optimizer's communicator has other processes, each gives its micro-batches, and the figures and
// the error are those of all together: the mean is over the supervised tokens of all, and NumericalError names the rank.
// The new weights of others may then still be under way: the next call waits for them layer by layer, and
// Optimizer::wait_for_weights() for all.
// token_bytes: bytes of each token, for the bits per byte; empty: those are not taken.
StepResult train_step(Gpt& model, Optimizer& optimizer, const std::vector<TokenBatch>& micro_batches,
                      const StepSettings& settings, const std::vector<std::int32_t>& token_bytes = {});

}  // namespace nanochat
