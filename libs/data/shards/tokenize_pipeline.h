#pragma once
// Documents read on one thread, tokenized on several, and returned
// in order; shared by `data prepare` and the loader of raw text.
//
// At most 2 x workers + 2 chunks of documents are in flight, so memory does not grow
// with the corpus. next() is for one thread; the destructor stops the others promptly.

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string_view>
#include <vector>

#include "data/text/documents.h"

namespace nanochat {

class Tokenizer;

struct TokenizedDocument {
  std::vector<std::int32_t> tokens;  // without BOS
  std::uint64_t index = 0;           // in the corpus
  std::uint64_t text_bytes = 0;
  std::uint32_t text_checksum = 0;   // see checksum_of()
  std::uint64_t bytes_read = 0;      // of the files as stored, up to this document or a little beyond
};

std::uint32_t checksum_of(std::string_view text);  // CRC-32

class TokenizePipeline {
 public:
  // `select` is called on the reading thread with the index of every document in order; false
  // skips it without tokenizing. workers 0: all threads. The tokenizer must outlive the pipeline.
  TokenizePipeline(std::unique_ptr<DocumentReader> reader, const Tokenizer& tokenizer, int workers,
                   std::function<bool(std::uint64_t)> select);
  ~TokenizePipeline();
  TokenizePipeline(const TokenizePipeline&) = delete;
  TokenizePipeline& operator=(const TokenizePipeline&) = delete;

  // The next selected document. False at the end, or if `stop` is requested.
  // Rethrows what reading or tokenizing threw, after the documents before it.
  bool next(TokenizedDocument& document, const std::stop_token& stop = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
