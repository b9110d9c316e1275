#pragma once
// Training a sentencepiece BPE tokenizer from a stream of documents, without a temporary copy of the corpus.

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

// `next` fills in the next document and returns false at the end. Deterministic for one seed. Throws TokenizerError
// when the corpus is empty or cannot support the vocabulary (the message says the largest size that it can).
std::shared_ptr<const Tokenizer> train_sentencepiece(const std::function<bool(std::string&)>& next,
                                                     const TokenizerTrainOptions& options);

}  // namespace nanochat
