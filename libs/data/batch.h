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
  // Documents for attention (cu_seqlens): the first of the B * T positions of each, and B * T. Empty: rows are documents.
  std::vector<std::int32_t> documents;
  // (B, T): factor of each token's loss in the loss of a step. Empty, as from loaders: the mean over supervised tokens.
  std::vector<float> weights = {};
};

}  // namespace nanochat
