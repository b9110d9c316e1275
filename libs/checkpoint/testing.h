#pragma once
// For tests of checkpoints only: a small model and a small real tokenizer.

#include <filesystem>
#include <memory>
#include <string>

#include "core/testing.h"
#include "model/gpt.h"
#include "tokenizer/load.h"

namespace nanochat::testing {

// Grouped heads, a vocabulary that needs padding (265 -> 320).
inline GptConfig small_config() {
  GptConfig config;
  config.sequence_len = 32;
  config.vocab_size = 265;
  config.n_layer = 2;
  config.n_head = 4;
  config.n_kv_head = 2;
  config.n_embd = 32;
  config.intermediate_size = 96;
  return config;
}

// A model whose every tensor is nonzero.
inline Gpt small_model(const GptConfig& config = small_config()) {
  Gpt model(config, at::kFloat);
  model.init_weights(7);
  for (Parameter& parameter : model.parameters()) {
    if (parameter.value.abs().max().item<float>() == 0.0f) parameter.value.normal_(0.0, 0.1);
  }
  model.refresh_compute();
  return model;
}

// The 256 bytes and no merges, read from a rank file; with the nine chat tokens it has 265.
inline std::shared_ptr<const Tokenizer> byte_tokenizer(const std::filesystem::path& folder,
                                                       const std::string& special = "nanochat") {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string ranks;
  for (unsigned byte = 0; byte < 256; ++byte) {  // base64 of one byte
    ranks += std::string{kDigits[byte >> 2], kDigits[(byte & 3) << 4]} + "== " + std::to_string(byte) + "\n";
  }
  write_text(folder / "bytes.tiktoken", ranks);
  TokenizerLoadOptions options;
  options.special = special;
  return load_tokenizer(folder / "bytes.tiktoken", options);
}

}  // namespace nanochat::testing
