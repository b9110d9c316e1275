#pragma once
// The identity of a tokenizer, see Tokenizer::fingerprint().

#include <string>
#include <vector>

#include "tokenizer/merge_table.h"

namespace nanochat {

// SHA-256 (hex) over everything that determines ids: `settings` (type, pattern), the
// ordinary tokens, the merges in order, the special tokens. Each list and each string
// is preceded by its length, so two different tokenizers never hash the same bytes.
std::string tokenizer_fingerprint(const std::vector<std::string>& settings, const std::vector<std::string>& tokens,
                                  const std::vector<Merge>& merges, const std::vector<std::string>& specials);

}  // namespace nanochat
