#pragma once
// Makes values equal on all processes of a run that each process could choose on its own.

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

#include "training/trainer/bits_per_byte.h"

namespace nanochat {

class Communicator;

// Returns the value of rank 0.
at::ScalarType same_dtype(Communicator& communicator, at::ScalarType mine);

// Sums over all processes, and the largest and the smallest value of any.
std::vector<double> sum_over_ranks(Communicator& communicator, std::vector<double> mine);
std::int64_t sum_over_ranks(Communicator& communicator, std::int64_t mine);
std::int64_t largest_over_ranks(Communicator& communicator, std::int64_t mine);
std::int64_t smallest_over_ranks(Communicator& communicator, std::int64_t mine);
BitsPerByte sum_over_ranks(Communicator& communicator, const BitsPerByte& mine);

}  // namespace nanochat
