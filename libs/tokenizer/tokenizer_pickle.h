#pragma once
// tokenizer.pkl of the reference: tiktoken's Encoding as stored by pickle.dump. It is read as data
// (core/pickle.h); nothing is executed. docs/formats/tokenizer.md describes it. Sources:
// RustBPETokenizer.save in the reference's tokenizer.py; Encoding.__getstate__ in tiktoken/core.py.

#include <string>
#include <string_view>

#include "tokenizer/byte_bpe.h"

namespace nanochat {

// Ranks must be 0, 1, 2, ..., followed by the ids of special tokens. `source` names the file in errors.
// Throws TokenizerError for any other pickle, including one that only names a published encoding.
ByteBpeDefinition parse_tokenizer_pickle(std::string_view contents, const std::string& source);

// Writes a file that the reference can load. Throws TokenizerError if the tokenizer's
// merges are not in the order of its ids, because tiktoken cannot express that.
std::string to_tokenizer_pickle(const ByteBpeTokenizer& tokenizer);

}  // namespace nanochat
