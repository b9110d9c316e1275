#pragma once
// One batch of training rows on the host.

#include <cstdint>
#include <vector>

namespace nanochat {

struct TokenBatch {
  std::int64_t rows = 0;          // B
  std::int64_t sequence_len = 0;  // T
  std::vector<std::int32_t> inputs;   // (B, T), row-major
  std::vector<std::int32_t> targets;  // (B, T); -1: not supervised
};

}  // namespace nanochat
