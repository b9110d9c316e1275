#include "distributed/agree.h"

#include <ATen/ops/full.h>

#include "distributed/communicator.h"

namespace nanochat {

const char* status_name(RankStatus status) {
  switch (status) {
    case RankStatus::kFine: return "fine";
    case RankStatus::kInterrupted: return "interrupted";
    case RankStatus::kEndOfData: return "end of data";
    case RankStatus::kNonFinite: return "not finite";
    case RankStatus::kFailedSave: return "failed save";
  }
  return "unknown";
}

Agreement agree(Communicator& communicator, RankStatus mine) {
  if (communicator.alone()) return {mine, 0};
  // One word: the status above, the rank below, counted from the last so that the largest word has the lowest rank.
  const std::int64_t size = communicator.size();
  const at::Tensor word = at::full({1}, static_cast<std::int64_t>(mine) * size + (size - 1 - communicator.rank()), at::kLong);
  communicator.all_reduce(word, ReduceOp::kMax).wait();
  const std::int64_t largest = *word.const_data_ptr<std::int64_t>();
  return {static_cast<RankStatus>(largest / size), static_cast<int>(size - 1 - largest % size)};
}

}  // namespace nanochat
