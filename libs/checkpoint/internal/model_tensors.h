#pragma once
// Internal to checkpoint: the tensors of a model (model/layout.h) in files, by the names that Hugging Face or the
// reference give them.

#include <c10/core/ScalarType.h>

#include <string>

#include "checkpoint/tensor_source.h"
#include "model/config.h"
#include "model/layout.h"

namespace nanochat {

enum class Naming { kHuggingFace, kReference };

std::string named(const TensorSpec& tensor, Naming naming);

// The tensors of `config` and nothing else, each of its shape and floating. Throws CheckpointError; `config_name` is
// the file that asks for it.
void check_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming,
                         const std::string& config_name);

// Copies of all in `dtype`, by their Hugging Face names, tables padded with zeros. Call check_model_tensors before.
NamedTensors read_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming,
                                at::ScalarType dtype);

// Copies one into `target`, which has every row.
void read_model_tensor(const TensorSpec& tensor, const TensorSource& source, Naming naming, at::Tensor& target);

}  // namespace nanochat
