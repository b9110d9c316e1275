#include "training/trainer/same_everywhere.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>

#include "distributed/communicator.h"

namespace nanochat {

at::ScalarType same_dtype(Communicator& communicator, at::ScalarType mine) {
  if (communicator.alone()) return mine;
  at::Tensor dtype = at::full({1}, static_cast<std::int64_t>(mine), at::kLong);
  communicator.broadcast(dtype).wait();
  return static_cast<at::ScalarType>(*dtype.const_data_ptr<std::int64_t>());
}

std::vector<double> sum_over_ranks(Communicator& communicator, std::vector<double> mine) {
  if (communicator.alone()) return mine;
  at::Tensor sums = at::empty({static_cast<std::int64_t>(mine.size())}, at::kDouble);
  std::copy(mine.begin(), mine.end(), sums.mutable_data_ptr<double>());
  communicator.all_reduce(sums).wait();
  std::copy_n(sums.const_data_ptr<double>(), mine.size(), mine.begin());
  return mine;
}

std::int64_t sum_over_ranks(Communicator& communicator, std::int64_t mine) {
  if (communicator.alone()) return mine;
  at::Tensor sum = at::full({1}, mine, at::kLong);
  communicator.all_reduce(sum).wait();
  return *sum.const_data_ptr<std::int64_t>();
}

std::int64_t largest_over_ranks(Communicator& communicator, std::int64_t mine) {
  if (communicator.alone()) return mine;
  at::Tensor largest = at::full({1}, mine, at::kLong);
  communicator.all_reduce(largest, ReduceOp::kMax).wait();
  return *largest.const_data_ptr<std::int64_t>();
}

std::int64_t smallest_over_ranks(Communicator& communicator, std::int64_t mine) {
  return -largest_over_ranks(communicator, -mine);
}

BitsPerByte sum_over_ranks(Communicator& communicator, const BitsPerByte& mine) {
  if (communicator.alone()) return mine;
  const double nats = sum_over_ranks(communicator, std::vector<double>{mine.nats}).front();
  return {nats, sum_over_ranks(communicator, mine.bytes), sum_over_ranks(communicator, mine.tokens)};
}

}  // namespace nanochat
