#pragma once
// Bits per byte: total loss divided by the bytes of the targets, comparable across vocabularies. Special tokens
// and ignored targets count neither as loss nor as bytes. Source: nanochat/loss_eval.py of the reference.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/batches/batch.h"
#include "distributed/communicator.h"

namespace nanochat {

class Gpt;
class Loader;

// The sums for bits per byte.
struct BitsPerByte {
  double nats = 0.0;
  std::int64_t bytes = 0;
  std::int64_t tokens = 0;  // tokens with at least one byte

  // losses: float32 (B, T) in nats, on any device; token_bytes[id] = bytes of a token, 0 for special tokens.
  void add(const at::Tensor& losses, const TokenBatch& batch, const std::vector<std::int32_t>& token_bytes);
  double value() const;  // infinite if there are no bytes
};

// Over at most max_batches batches of the loader (all when it ends before). Throws DataError when it has none. The
// processes of a communicator each have a loader of their rank, whose batches together are at most max_batches, and get
// the sum over all.
BitsPerByte evaluate_bits_per_byte(Gpt& model, Loader& loader, std::int64_t max_batches,
                                   const std::vector<std::int32_t>& token_bytes, Communicator& communicator = alone());

// Over at most `tokens` tokens of open(rows, sequence_len), in batches of that shape, or of a smaller
// shape if the text does not fill one batch. Throws DataError for a text of less than three tokens.
using OpenLoader = std::function<std::unique_ptr<Loader>(std::int64_t rows, std::int64_t sequence_len)>;
BitsPerByte evaluate_bits_per_byte(Gpt& model, const OpenLoader& open, std::int64_t rows, std::int64_t sequence_len,
                                   std::int64_t tokens, const std::vector<std::int32_t>& token_bytes,
                                   Communicator& communicator = alone());

}  // namespace nanochat
