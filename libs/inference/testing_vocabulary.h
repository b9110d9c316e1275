#pragma once
// For tests and benchmarks only: vocabularies without a tokenizer.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/random.h"
#include "inference/token_trie.h"

namespace nanochat::testing {

// Every byte, pieces that cross the borders of JSON's parts, and made-up words up to `size` tokens.
inline std::vector<std::string> make_vocabulary(std::size_t size = 0) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* piece : {"{\"",      "\":",      "\", \"",   "\"}", "[]",    "{}",       "},{",   "true", "false", "null",
                            "10",       "2.5",      "-1",       "\\n", "\\u00", "name",     "ab",    "abc",  " the",  "  ",
                            "\xc3\xa9", "\xf0\x9f", "\x98\x80", "foo", "bar",   "\"a\": 1", "2024-", "http"}) {
    tokens.emplace_back(piece);
  }
  // Words as a tokenizer has them: of one to four syllables, half of them after a space.
  Rng rng(1);
  while (tokens.size() < size) {
    std::string word = rng.below(2) == 0 ? " " : "";
    for (std::uint64_t i = 0, n = 1 + rng.below(4); i < n; ++i) {
      word += "bcdfghklmnprstvw"[rng.below(16)];
      word += "aeiou"[rng.below(5)];
    }
    tokens.push_back(word);
  }
  return tokens;
}

// The trie refers to `tokens` only while it is made.
inline std::shared_ptr<const TokenTrie> trie_of(const std::vector<std::string>& tokens) {
  return std::make_shared<const TokenTrie>(static_cast<std::int64_t>(tokens.size()), [&](std::int32_t id) {
    return std::string_view(tokens[static_cast<std::size_t>(id)]);
  });
}

// The ids that a mask of TokenConstraint::allowed() allows.
inline std::vector<std::int32_t> allowed_ids(std::span<const std::uint64_t> mask, std::size_t vocab_size) {
  std::vector<std::int32_t> ids;
  for (std::size_t id = 0; id < vocab_size; ++id) {
    if ((mask[id / 64] >> (id % 64) & 1U) != 0) ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

}  // namespace nanochat::testing
