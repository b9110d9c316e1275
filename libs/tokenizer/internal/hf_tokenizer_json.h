#pragma once
// tokenizer.json of Hugging Face's `tokenizers`, read and written. What ours contain, key by key, is in
// docs/formats/tokenizer.md. Source: huggingface/tokenizers, the serialised form of its BPE model, pre-tokenizers,
// normalizers and decoders.

#include <string>
#include <string_view>
#include <variant>

#include "tokenizer/byte_bpe.h"
#include "tokenizer/internal/sentencepiece_tokenizer.h"

namespace nanochat {

// Byte-level BPE, cut by ByteLevel and Splits, with normalizers and added tokens (text_steps.h), or the sentencepiece form
// that to_hf_json writes. Anything that would encode otherwise than this program does (other models, normalizers and
// pre-tokenizers, dropout) throws TokenizerError with the key.
std::variant<ByteBpeDefinition, SentencePieceDefinition> parse_hf_json(std::string_view contents,
                                                                       const std::string& source);

std::string to_hf_json(const ByteBpeTokenizer& tokenizer);
std::string to_hf_json(const SentencePieceTokenizer& tokenizer);
// tokenizer_config.json: the class that transformers' AutoTokenizer makes of it, and which tokens begin and end a
// text.
std::string hf_tokenizer_config(const Tokenizer& tokenizer);

// GPT-2's printable stand-ins for bytes: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up.
// Source: bytes_to_unicode in GPT-2's encoder.py.
std::string bytes_to_printable(std::string_view bytes);
// Throws TokenizerError naming a character that stands for no byte.
std::string printable_to_bytes(std::string_view printable, const std::string& source);

}  // namespace nanochat
