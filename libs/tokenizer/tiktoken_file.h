#pragma once
// tiktoken's rank files: one line "BASE64 RANK" per token, with ranks 0, 1, 2, ... in any order.
// Source: tiktoken/load.py.

#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

class ByteBpeTokenizer;

// The bytes of each token, by rank. `source` names the file in errors. Throws TokenizerError
// for a malformed line, a rank that is missing or occurs twice, or a token that occurs twice.
std::vector<std::string> parse_tiktoken_ranks(std::string_view contents, const std::string& source);

// The split pattern of a published rank file, identified by the SHA-256 of the file; empty for any other.
std::string_view published_pattern(std::string_view contents);

// The rank file of a tokenizer. The format does not contain the split
// pattern and special tokens. Throws TokenizerError as require_rank_order.
std::string to_tiktoken_ranks(const ByteBpeTokenizer& tokenizer);

// tiktoken merges by the id of the result. Throws TokenizerError if the tokenizer's own merges would give other ids.
void require_rank_order(const ByteBpeTokenizer& tokenizer);

}  // namespace nanochat
