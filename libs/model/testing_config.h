#pragma once
// For tests only: a model so small that it computes at once, with grouped heads.

#include "model/config.h"

namespace nanochat::testing {

// Two layers of width 64, four query heads over `n_kv_head` of keys and values.
inline GptConfig grouped_config(std::int64_t vocab_size, std::int64_t sequence_len, std::int64_t n_kv_head = 2) {
  GptConfig config;
  config.n_layer = 2;
  config.n_head = 4;
  config.n_kv_head = n_kv_head;
  config.n_embd = 64;
  config.intermediate_size = 96;
  config.vocab_size = vocab_size;
  config.sequence_len = sequence_len;
  return config;
}

// The same of nanochat-2026-07, with five layers: windows of 128 in the first two and the fourth, value embeddings in the first,
// the third and the fifth.
inline GptConfig newest_config(std::int64_t vocab_size, std::int64_t sequence_len, std::int64_t n_kv_head = 2) {
  GptConfig config = grouped_config(vocab_size, sequence_len, n_kv_head);
  config.architecture = Architecture::kNanochat2026_07;
  config.n_layer = 5;
  config.window_pattern = "SSL";
  config.qk_scale = 1.2;
  config.rope_base = 100000.0;
  config.rms_norm_eps = 0x1p-23;
  return config;
}

}  // namespace nanochat::testing
