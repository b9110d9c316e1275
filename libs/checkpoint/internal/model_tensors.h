#pragma once
// Internal to checkpoint: the tensors of a model (model/layout.h)
// in files, by their names in Hugging Face or the reference.

#include <c10/core/ScalarType.h>

#include <string>

#include "checkpoint/tensor_source.h"
#include "model/config.h"
#include "model/layout.h"

namespace nanochat {

enum class Naming { kHuggingFace, kReference };

std::string named(const TensorSpec& tensor, Naming naming);

// Checks that the file has exactly the tensors of `config`, each with its shape and a
// floating type. Throws CheckpointError; `config_name` is the file that requires it.
void check_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming, const std::string& config_name);

// Copies of all tensors in `dtype`, by Hugging Face name; tables are zero-padded. Call check_model_tensors before.
NamedTensors read_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming, at::ScalarType dtype);

// Copies one tensor into `target`, which has every row.
void read_model_tensor(const TensorSpec& tensor, const TensorSource& source, Naming naming, at::Tensor& target);

}  // namespace nanochat
