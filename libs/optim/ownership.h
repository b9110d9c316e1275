#pragma once
// Which process updates what, where several share the state of the optimizer (ZeRO-2: Rajbhandari et al. 2020). A matrix
// of Muon has one owner, since its orthogonalisation needs all of it. Of a tensor of AdamW each process owns some rows;
// scalars belong to process 0.
//
// The division is a function of the model and of the number of processes alone, so that every process knows it.

#include <cstdint>
#include <vector>

#include "model/layout.h"
#include "model/parameter.h"

namespace nanochat {

// Rows [first, end) of a parameter, which one process updates.
struct OwnedRows {
  std::int64_t first = 0, end = 0;
  int owner = 0;
};

// Of `rows` rows the first that is the process's of this rank; its last is before that of rank + 1.
std::int64_t first_row_of(std::int64_t rows, int rank, int ranks);

// For each parameter its rows by owner, in ascending order and without empty parts. The matrices of Muon are dealt out by
// the operations of Newton-Schulz: layer by layer, the largest first, to whoever has the least so far.
std::vector<std::vector<OwnedRows>> divide_tensors(const std::vector<TensorSpec>& tensors, int ranks);
std::vector<std::vector<OwnedRows>> divide_parameters(const std::vector<Parameter>& parameters, int ranks);

}  // namespace nanochat
