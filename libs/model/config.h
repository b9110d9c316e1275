#pragma once
// Shape and constants of a model. Everything that affects its results is here and in a checkpoint's
// config.json; readers assume nothing. Source: GPTConfig and scripts/base_train.py of the reference.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nanochat {

// Which network computes with the numbers below. Named after the version of the reference that it is:
// nanochat-2025-12 is commit d314e96, nanochat-2026-07 is commit 92d63d4, which adds value embeddings with gates, scales of the
// residual stream per layer, smear, backout and sliding windows (docs/algorithms.md).
enum class Architecture { kNanochat2025_12, kNanochat2026_07 };
const char* architecture_name(Architecture architecture);  // "nanochat-2025-12"
std::optional<Architecture> architecture_of_name(std::string_view name);

struct GptConfig {
  Architecture architecture = Architecture::kNanochat2025_12;
  std::int64_t sequence_len = 2048;  // longest row in training
  std::int64_t vocab_size = 65536;  // number of tokens; the tables are padded to a multiple of 64
  std::int64_t n_layer = 20;
  std::int64_t n_head = 10;  // query heads
  std::int64_t n_kv_head = 10;  // key/value heads; divides n_head
  std::int64_t n_embd = 1280;  // width
  std::int64_t intermediate_size = 5120;  // hidden size of the MLP, 4 * n_embd in the reference
  double rope_base = 10000.0;
  bool rope_table_bf16 = false;  // cos/sin rounded to bfloat16, as in the reference; transformers does not round
  double softcap = 15.0;  // of the logits; 0: none
  double rms_norm_eps = 1e-6;
  // Of nanochat-2026-07 alone, and their neutral values otherwise.
  std::string window_pattern = "";  // repeated over the layers: S (short window) and L (sequence_len); the last is long
  double qk_scale = 1.0;  // factor of queries and of keys after QK-norm

  // Shape from the depth, without grouped queries. nanochat-2025-12: width 64 * depth, heads of 128 (64 below depth 12).
  // nanochat-2026-07: width 64 * depth, rounded up to whole heads of 128; RoPE base 100,000, window pattern SSSL, eps 2^-23.
  static GptConfig from_depth(std::int64_t depth, std::int64_t vocab_size, std::int64_t sequence_len,
                              Architecture architecture = Architecture::kNanochat2025_12);

  std::int64_t head_dim() const { return n_embd / n_head; }
  std::int64_t padded_vocab_size() const { return (vocab_size + 63) / 64 * 64; }
  bool is_2026() const { return architecture == Architecture::kNanochat2026_07; }
  std::int64_t qkv_size() const { return (n_head + 2 * n_kv_head) * head_dim(); }

  // Number of parameters including vocabulary padding, as the reference counts them.
  std::int64_t parameter_count() const;
  // Floating-point operations of forward and backward per token (PaLM, Chowdhery et al. 2022, appendix B):
  // 6 * (parameters that multiply every token) + 12 * width * (positions attended to, at most the window, summed over the layers).
  double flops_per_token() const;

  // Throws ConfigError with the field that is wrong.
  void validate() const;

  bool operator==(const GptConfig&) const = default;
};

}  // namespace nanochat
