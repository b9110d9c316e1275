#pragma once
// Training a tokenizer from a stream of documents, without a temporary copy of the corpus on disk.
//
// sentencepiece: the pieces never contain a digit beside another character, a space after another character, or two scripts; line
// breaks merge with punctuation before them. At most half of the vocabulary goes to single characters and none to
// those that make up the rarest 0.01 % of the text: they fall back to bytes.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "tokenizer/pretokenizer.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// Fills in the next document and returns false at the end.
using NextDocument = std::function<bool(std::string&)>;

struct TokenizerTrainOptions {
  std::int64_t vocab_size = 32768;           // the nine special tokens included
  // sentencepiece: of documents taken, seeded at random, over the whole corpus. Byte-level BPE: of documents in order,
  // as the reference takes them. 0: kSentencePieceBytes or kByteBpeBytes.
  std::int64_t max_bytes = 0;
  std::int64_t max_document_bytes = 20'000;  // longer documents are cut here (at a character)
  int threads = 0;                           // 0: all
  std::uint64_t seed = 42;                   // sentencepiece: of the sample
  // Byte-level BPE:
  std::string pattern = "nanochat";                     // a name or a regular expression, see resolve_pattern
  std::int64_t max_memory_bytes = 2'000'000'000;        // of distinct pieces; beyond, the rarest are dropped
};
inline constexpr std::int64_t kSentencePieceBytes = 1'000'000'000, kByteBpeBytes = 10'000'000'000;

// Deterministic for one seed, whatever the threads. Memory: two to three times the sampled text, at most max_bytes of
// it; a 20 kB corpus and one of terabytes differ in reading time alone. Throws TokenizerError when the corpus is empty
// or cannot support the vocabulary (the message says the largest size that it can), ConfigError for options out of
// range.
std::shared_ptr<const Tokenizer> train_sentencepiece(const NextDocument& next, const TokenizerTrainOptions& options);

// Byte-level BPE over pieces of text that `pattern` cuts: the merges of the reference's rustbpe (bpe_merges.h). Equal
// for one corpus and options whatever the threads, dropped pieces included. Memory: a batch of text, the distinct
// pieces, and about 12 bytes for each byte of them while merges are learned. `progress` hears of merges made. Errors as
// above.
std::shared_ptr<const Tokenizer> train_byte_bpe(const NextDocument& next, const TokenizerTrainOptions& options,
                                                const std::function<void(std::int64_t)>& progress = {});

}  // namespace nanochat
