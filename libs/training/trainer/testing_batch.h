#pragma once
// For tests only: a batch of random tokens.

#include <cstdint>

#include "data/batches/batch.h"
#include "model/testing.h"

namespace nanochat::testing {

// Ids below vocab; every token is the target of the one before it.
inline TokenBatch random_batch(std::int64_t rows, std::int64_t time, std::int64_t vocab, std::uint64_t seed) {
  const at::Tensor tokens = random_ids(rows, time + 1, vocab, seed);
  TokenBatch batch{rows, time, {}, {}, {}};
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto* first = tokens.const_data_ptr<std::int32_t>() + row * (time + 1);
    batch.inputs.insert(batch.inputs.end(), first, first + time);
    batch.targets.insert(batch.targets.end(), first + 1, first + time + 1);
  }
  return batch;
}

}  // namespace nanochat::testing
