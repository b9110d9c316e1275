#pragma once
// Training a sentencepiece BPE tokenizer from a stream of documents, without a temporary copy of the corpus on disk.
//
// The pieces never contain a digit beside another character, a space after another character, or two scripts; line
// breaks merge with punctuation before them. At most half of the vocabulary goes to single characters and none to
// those that make up the rarest 0.01 % of the text: they fall back to bytes.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace nanochat {

struct TokenizerTrainOptions {
  std::int64_t vocab_size = 32768;           // the nine special tokens included
  std::int64_t max_bytes = 1'000'000'000;    // documents are taken, seeded at random, up to this many bytes
  std::int64_t max_document_bytes = 20'000;  // longer documents are cut here (at a character)
  int threads = 0;                           // 0: all
  std::uint64_t seed = 42;
};

// `next` fills in the next document and returns false at the end. Deterministic for one seed, whatever the threads.
// Memory: two to three times the sampled text, at most max_bytes of it; a 20 kB corpus and one of terabytes differ in
// reading time alone. Throws TokenizerError when the corpus is empty or cannot support the vocabulary (the message
// says the largest size that it can), ConfigError for options out of range.
std::shared_ptr<const Tokenizer> train_sentencepiece(const std::function<bool(std::string&)>& next,
                                                     const TokenizerTrainOptions& options);

}  // namespace nanochat
