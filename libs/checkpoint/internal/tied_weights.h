#pragma once
// Internal to checkpoint: models whose head is tied to the embedding. This
// program's models have two tables; an imported one begins with two equal ones.

#include <memory>
#include <string>

#include "checkpoint/internal/model_tensors.h"
#include "checkpoint/tensor_source.h"

namespace nanochat {

// `source` with the missing table read from the other one: the head, or, if `tied` is true, the
// embedding. `note` then describes it. Throws CheckpointError if the two are declared as tied but differ.
std::unique_ptr<TensorSource> untie_weights(std::unique_ptr<TensorSource> source, Naming naming, bool tied, std::string& note);

}  // namespace nanochat
