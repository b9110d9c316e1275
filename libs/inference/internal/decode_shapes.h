#pragma once
// For the engine only: the shapes of the decoding steps that are recorded on a GPU. A step is padded to the next one.

#include <cstdint>
#include <vector>

namespace nanochat {

// Most sequences of a recorded step; more are passed through the model unrecorded.
inline constexpr std::int64_t kMostRecordedRows = 512;

// The least number of rows of a recorded step that holds `rows`, which are at most kMostRecordedRows: powers of two up to 16,
// then multiples of 16 up to 64, of 32 up to 256 and of 64. Padded rows cost little: up to 64 a product is bound by its weights.
std::int64_t recorded_rows(std::int64_t rows);
// All of those up to recorded_rows(most), in order.
std::vector<std::int64_t> all_recorded_rows(std::int64_t most);

// The least number of positions that a step is recorded for and that holds `positions`: 1,024 times a power of four, but at
// most the context. How attention is split depends on it.
std::int64_t recorded_positions(std::int64_t positions, std::int64_t context);

}  // namespace nanochat
