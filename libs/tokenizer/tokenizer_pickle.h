#pragma once
// tokenizer.pkl of the reference: tiktoken's Encoding as pickle.dump stores it. Read as data (core/pickle.h), nothing
// of it is executed. Sources: RustBPETokenizer.save in the reference's tokenizer.py; Encoding.__getstate__ in
// tiktoken/core.py. What is in it: docs/formats/tokenizer.md.

#include <string>
#include <string_view>

#include "tokenizer/byte_bpe.h"

namespace nanochat {

// Ranks must be 0, 1, 2, ..., special tokens the ids behind them. `source` names the file in errors. Throws
// TokenizerError for a pickle of anything else, one that only names a published encoding included.
ByteBpeDefinition parse_tokenizer_pickle(std::string_view contents, const std::string& source);

// The same for the reference to load. Throws TokenizerError when the tokenizer's merges are not in the order of its
// ids, which tiktoken could not express.
std::string to_tokenizer_pickle(const ByteBpeTokenizer& tokenizer);

}  // namespace nanochat
