#pragma once
// A trainable tensor of a model, as the optimizer and checkpoints use it.

#include <ATen/core/Tensor.h>

#include <string>

#include "model/layout.h"

namespace nanochat {

// Purpose of a model. A model for inference has no training state: no master weights and no gradients.
enum class Purpose { kTraining, kInference };

struct Parameter {
  TensorSpec spec;
  std::string name;    // as in transformers' NanoChatForCausalLM: "model.layers.0.self_attn.q_proj.weight"
  // float32 master weights in a model for training, otherwise the same tensor as `compute`. Undefined where a WeightKeeper has
  // them (Residency::kShared); `compute` and `grad` are then valid only for a part of a pass.
  at::Tensor value;
  at::Tensor compute;  // what the model computes with: `value`, or its bfloat16 copy
  at::Tensor grad;  // float32; undefined in a model for inference, and before the first forward_backward
};

}  // namespace nanochat
