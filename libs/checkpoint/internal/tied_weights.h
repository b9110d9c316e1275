#pragma once
// Internal to checkpoint: models of others whose head is their embedding. This program's models have two tables, so that
// an imported one begins with two equal ones.

#include <memory>
#include <string>

#include "checkpoint/internal/model_tensors.h"
#include "checkpoint/tensor_source.h"

namespace nanochat {

// `source`, with the table that it lacks read from the other one: the head, or, where `tied` says that they are one, the
// embedding. `note` says so then. Throws CheckpointError when the two are said to be one, but differ.
std::unique_ptr<TensorSource> untie_weights(std::unique_ptr<TensorSource> source, Naming naming, bool tied,
                                            std::string& note);

}  // namespace nanochat
