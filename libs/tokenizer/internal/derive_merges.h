#pragma once
// Derives merge rules from a list of tokens in the order of training. Rank files and
// SentencePiece models do not contain merges; a Hugging Face tokenizer.json does.

#include <string>
#include <vector>

#include "tokenizer/merge_table.h"

namespace nanochat {

struct MergedToken {
  TokenId id = 0;
  std::string bytes;                        // as token_bytes() returns them
  std::vector<TokenId> symbols;             // the single bytes or characters it is made of, at least two
  std::vector<std::size_t> symbol_lengths;  // length of each symbol in bytes
};

// `tokens` are in rank order. A trained token is made by exactly one pair: the two symbols that
// remain of it after all earlier merges. If this holds for every token, one merge per token is
// returned, with ranks 0, 1, 2, .... Encoding with these merges equals encoding by the rank of the
// joined bytes, because as long as no merge crosses the ends of a token, its symbols are those of
// its own encoding. Otherwise (a hand-made vocabulary), every split of a token into two known
// tokens is a merge, and all splits of a token share its rank, as in tiktoken and SentencePiece.
std::vector<Merge> derive_merges(const std::vector<MergedToken>& tokens);

}  // namespace nanochat
