#pragma once
// Trains a tokenizer on a stream of documents, without a temporary copy of the corpus on disk.
//
// SentencePiece: a piece never contains a digit with another character, a space after another character,
// or two scripts. Line breaks merge with punctuation before them. At most half of the vocabulary are
// single characters; the rarest 0.01 % of the text's characters get none and are encoded as bytes.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "tokenizer/pretokenizer.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// Fills in the next document; returns false at the end.
using NextDocument = std::function<bool(std::string&)>;

struct TokenizerTrainOptions {
  std::int64_t vocab_size = 32768;           // including the nine special tokens
  // SentencePiece: a seeded random sample over the whole corpus. Byte-level BPE:
  // documents in order, as in the reference. 0: kSentencePieceBytes or kByteBpeBytes.
  std::int64_t max_bytes = 0;
  std::int64_t max_document_bytes = 20'000;  // longer documents are truncated to this, between characters
  int threads = 0;                           // 0: all
  std::uint64_t seed = 42;                   // SentencePiece: seed of the sample
  // Byte-level BPE:
  std::string pattern = "nanochat";                     // a name or a regular expression, see resolve_pattern
  std::int64_t max_memory_bytes = 2'000'000'000;        // limit for distinct pieces; above it, the rarest are dropped
};
inline constexpr std::int64_t kSentencePieceBytes = 1'000'000'000, kByteBpeBytes = 10'000'000'000;

// The result depends on the seed but not on the number of threads. Memory: two to three
// times the sampled text, which is at most max_bytes whatever the size of the corpus.
// Throws TokenizerError if the corpus is empty or too small for the vocabulary (the
// message has the largest possible size), and ConfigError for options out of range.
std::shared_ptr<const Tokenizer> train_sentencepiece(const NextDocument& next, const TokenizerTrainOptions& options);

// Byte-level BPE over the pieces that `pattern` gives: the merges of the reference's
// rustbpe (bpe_merges.h). The result, including dropped pieces, does not depend on the
// number of threads. Memory: a batch of text, the distinct pieces, and about 12 bytes for
// each byte of them while merges are learned. `progress` reports merges. Errors as above.
std::shared_ptr<const Tokenizer> train_byte_bpe(const NextDocument& next, const TokenizerTrainOptions& options,
                                                const std::function<void(std::int64_t)>& progress = {});

}  // namespace nanochat
