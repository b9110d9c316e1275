#pragma once
// A tensor that a model learns, as the optimizer and checkpoints see it.

#include <ATen/core/Tensor.h>

#include <string>

#include "model/layout.h"

namespace nanochat {

// What a model is made for. A model for inference has no state of training: no master weights and no gradients.
enum class Purpose { kTraining, kInference };

struct Parameter {
  TensorSpec spec;
  std::string name;    // as in transformers' NanoChatForCausalLM: "model.layers.0.self_attn.q_proj.weight"
  at::Tensor value;    // its numbers: float32 master weights in a model for training, else the same tensor as `compute`
  at::Tensor compute;  // what the model computes with: `value` itself, or its bfloat16 copy
  at::Tensor grad;     // float32; undefined in a model for inference, and before the first forward_backward
};

}  // namespace nanochat
