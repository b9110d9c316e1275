#pragma once
// Merge rules from a list of tokens in the order in which training made them: what a rank file and a sentencepiece
// model leave out and a Hugging Face tokenizer.json spells out.

#include <string>
#include <vector>

#include "tokenizer/merge_table.h"

namespace nanochat {

struct MergedToken {
  TokenId id = 0;
  std::string bytes;                        // as token_bytes() has them
  std::vector<TokenId> symbols;             // single bytes or characters it begins from, at least two
  std::vector<std::size_t> symbol_lengths;  // bytes of each symbol
};

// `tokens` in rank order. A trained token is made by exactly one pair: the two symbols that remain of it under the
// merges before it. If that holds for every token, one merge each is returned, ranks 0, 1, 2, ..., and encoding by
// them equals encoding by the rank of the joined bytes: nothing can join two other neighbours into the token, for as
// long as no merge crosses its ends the symbols inside are those that its own encoding has, in the same order.
// Otherwise (a hand-made vocabulary) every split of a token into two known ones is a merge, and all splits of one
// token share its rank, as tiktoken and sentencepiece define it.
std::vector<Merge> derive_merges(const std::vector<MergedToken>& tokens);

}  // namespace nanochat
