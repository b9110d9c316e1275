#pragma once
// Reads and writes tokenizer.json of Hugging Face's `tokenizers`. docs/formats/tokenizer.md
// describes our files key by key. Source: huggingface/tokenizers, the serialised form of
// its BPE model, pre-tokenizers, normalizers and decoders.

#include <string>
#include <string_view>
#include <variant>

#include "tokenizer/byte_bpe.h"
#include "tokenizer/internal/sentencepiece_tokenizer.h"

namespace nanochat {

// Reads byte-level BPE split by ByteLevel and Split, with normalizers and added tokens (text_steps.h),
// or the SentencePiece form that to_hf_json writes. Throws TokenizerError with the key for anything
// that this program would encode differently (other models, normalizers and pre-tokenizers, dropout).
std::variant<ByteBpeDefinition, SentencePieceDefinition> parse_hf_json(std::string_view contents, const std::string& source);

std::string to_hf_json(const ByteBpeTokenizer& tokenizer);
std::string to_hf_json(const SentencePieceTokenizer& tokenizer);
// tokenizer_config.json: the class that transformers'
// AutoTokenizer creates, and the tokens that begin and end a text.
std::string hf_tokenizer_config(const Tokenizer& tokenizer);

// GPT-2's printable characters for bytes: printable Latin-1 stays itself, and the
// other 68 bytes become U+0100 and up. Source: bytes_to_unicode in GPT-2's encoder.py.
std::string bytes_to_printable(std::string_view bytes);
// Throws TokenizerError with a character that does not stand for a byte.
std::string printable_to_bytes(std::string_view printable, const std::string& source);

}  // namespace nanochat
