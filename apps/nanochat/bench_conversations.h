#pragma once
// Rows of packed conversations for `nanochat bench train`, and how fast they are made.

#include <cstdint>
#include <memory>
#include <string>

#include "data/batches/batch.h"

namespace nanochat {
class Loader;
class Tokenizer;
}  // namespace nanochat

namespace nanochat::cli {

class BenchConversations {
 public:
  // `mixture`: as --mixture of `nanochat sft`. Times an epoch: rendering on every core, packing, batches of `rows`.
  BenchConversations(const std::string& mixture, const Tokenizer& tokenizer, std::int64_t rows, std::int64_t sequence_len);
  ~BenchConversations();

  TokenBatch next();                    // epoch after epoch
  std::int64_t conversations() const;   // of an epoch
  double tokens_each() const;           // on average
  double rendered_per_second() const { return rendered_per_second_; }  // conversations, from text to ids
  double packed_per_second() const { return packed_per_second_; }      // from ids to batches
  double loaded_per_second() const;     // both, one after the other
  double conversations_of_a_row() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  double rendered_per_second_ = 0.0, packed_per_second_ = 0.0;
};

}  // namespace nanochat::cli
