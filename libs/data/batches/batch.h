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
  // Documents that attention must not cross (S + 1): the first position of each among the B * T, and B * T. Known elsewhere
  // as cu_seqlens, cumulative sequence lengths. Empty: each row is one document.
  std::vector<std::int32_t> documents;
  // (B, T): factor of each token's loss in the loss of a step. Empty, as from loaders: the mean over supervised tokens.
  std::vector<float> weights = {};
};

}  // namespace nanochat
