#include "training/trainer/bits_per_byte.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "core/errors.h"
#include "core/interrupt.h"
#include "data/batches/loader.h"
#include "model/gpt.h"
#include "training/trainer/batch_tensors.h"
#include "training/trainer/same_everywhere.h"

namespace nanochat {
void BitsPerByte::add(const at::Tensor& losses, const TokenBatch& batch, const std::vector<std::int32_t>& token_bytes) {
  const at::Tensor on_host = losses.cpu();
  const float* loss = on_host.const_data_ptr<float>();
  for (std::size_t i = 0; i < batch.targets.size(); ++i) {
    const std::int32_t target = batch.targets[i];
    if (target < 0) continue;
    const std::int32_t length = token_bytes.at(static_cast<std::size_t>(target));
    if (length == 0) continue;
    nats += static_cast<double>(loss[i]);
    bytes += length;
    ++tokens;
  }
}

double BitsPerByte::value() const {
  if (bytes == 0) return std::numeric_limits<double>::infinity();
  return nats / (std::numbers::ln2 * static_cast<double>(bytes));
}

namespace {

// How many of so many batches are this rank's.
std::int64_t share_of_batches(std::int64_t batches, const Communicator& communicator) {
  return (batches + communicator.size() - 1 - communicator.rank()) / communicator.size();
}

// nullopt, in all processes, when there is no batch.
std::optional<BitsPerByte> measure(Gpt& model, Loader& loader, std::int64_t max_batches,
                                   const std::vector<std::int32_t>& token_bytes, Communicator& communicator) {
  std::int64_t batches = 0;
  const std::int64_t most = share_of_batches(max_batches, communicator);
  const BitsPerByte mine = uneven_passes(model, [&] {
    BitsPerByte sum;
    for (TokenBatch batch; batches < most && !interrupt_requested() && loader.next(batch); ++batches) {
      sum.add(model.token_losses(inputs_of(batch), targets_of(batch), documents_of(batch)), batch, token_bytes);
    }
    return sum;
  });
  const bool none = sum_over_ranks(communicator, batches + (interrupt_requested() ? 1 : 0)) == 0;
  return none ? std::nullopt : std::optional(sum_over_ranks(communicator, mine));
}

}  // namespace

BitsPerByte evaluate_bits_per_byte(Gpt& model, Loader& loader, std::int64_t max_batches,
                                   const std::vector<std::int32_t>& token_bytes, Communicator& communicator) {
  if (const auto total = measure(model, loader, max_batches, token_bytes, communicator)) return *total;
  throw DataError("what is to be measured holds less than one batch; give more text");
}

BitsPerByte evaluate_bits_per_byte(Gpt& model, const OpenLoader& open, std::int64_t rows, std::int64_t sequence_len,
                                   std::int64_t tokens, const std::vector<std::int32_t>& token_bytes,
                                   Communicator& communicator) {
  while (true) {
    const std::int64_t batches = std::max<std::int64_t>(1, tokens / (rows * sequence_len));
    if (const auto total = measure(model, *open(rows, sequence_len), batches, token_bytes, communicator)) return *total;
    if (rows > 1) {
      rows /= 2;
    } else if (sequence_len > 2) {
      sequence_len /= 2;
    } else {
      throw DataError("what is to be measured is shorter than three tokens; give more text");
    }
  }
}

}  // namespace nanochat
