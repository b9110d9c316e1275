#pragma once
// tiktoken's rank files: a line "BASE64 RANK" for each token, ranks 0, 1, 2, ... in any order.
// Source: tiktoken/load.py.

#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

// The bytes of each token, by rank. `source` names the file in errors: a malformed line, a rank that is missing or
// occurs twice, the same token twice. Throws TokenizerError.
std::vector<std::string> parse_tiktoken_ranks(std::string_view contents, const std::string& source);

// The split pattern of a published rank file, known by the SHA-256 of the file; empty for any other.
std::string_view published_pattern(std::string_view contents);

}  // namespace nanochat
