#pragma once
// Lets all ranks agree on a status before each optimizer step. If one rank stopped on its own, the others would wait for it.

#include <cstdint>

namespace nanochat {

class Communicator;

// In the order of severity: the most severe status of all ranks decides.
enum class RankStatus : std::int32_t {
  kFine = 0,
  kInterrupted = 1,  // asked to save and stop
  kEndOfData = 2,    // no more batches
  kNonFinite = 3,    // a loss or gradient that is NaN or infinite
  kFailedSave = 4,   // a checkpoint could not be written
};

const char* status_name(RankStatus status);  // "fine", "interrupted", ...

struct Agreement {
  RankStatus status = RankStatus::kFine;
  int rank = 0;  // the lowest rank that has this status
};

// Returns the same answer on every rank. All ranks must call it. With one process, the answer is `mine`.
Agreement agree(Communicator& communicator, RankStatus mine);

}  // namespace nanochat
