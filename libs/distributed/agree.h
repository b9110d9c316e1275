#pragma once
// What one rank finds out and all must know before they go on: otherwise one stops, and the others wait for it.

#include <cstdint>

namespace nanochat {

class Communicator;

// The most severe of all ranks' decides.
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
  int rank = 0;  // the lowest whose status it is
};

// The same answer on every rank. Called by all, before each optimizer step. Alone: `mine`.
Agreement agree(Communicator& communicator, RankStatus mine);

}  // namespace nanochat
