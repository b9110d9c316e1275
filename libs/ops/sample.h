#pragma once
// The next token of each row of logits (ops/row_sampler.h has the steps). On a CPU row by row; on a GPU all rows in one
// kernel, and no logits leave the device. A row's token is the same on both, and with any other rows beside it.
//
//   std::vector<SampleRow> rows = {{.row = 0, .temperature = 0.0}, {.row = 1, .uniform = 0.25}};
//   for (const SampledRow& row : sample(logits, rows)) use(row.token.id);

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/row_sampler.h"

namespace nanochat::ops {

struct SampledRow {
  SampledToken token;
  std::vector<SampledToken> top;  // the most likely tokens of the unmodified distribution, most likely first
  std::string error;              // why there is no token: a logit that is NaN or +Inf, or nothing may be drawn
};

// logits: (rows, vocab) float32, dense.
std::vector<SampledRow> sample(const at::Tensor& logits, std::span<const SampleRow> rows);

namespace cuda {
class Event;
}

// The same on a GPU without waiting for it: the tokens may go into the next pass of the model before the host has them.
class DeviceSamples {
 public:
  // tokens: where they go, int32 with at least as many elements as there are rows, on the device of the logits; undefined:
  // memory of its own. inputs: int32, of SampleRow::last_input.
  DeviceSamples(const at::Tensor& logits, std::span<const SampleRow> rows, at::Tensor tokens = {}, const at::Tensor& inputs = {});
  // int32 (rows) on the device; -1 where there is an error.
  const at::Tensor& tokens() const { return tokens_; }
  // Waits for the draws, and for nothing that was enqueued behind them.
  std::vector<SampledRow> read() const;

 private:
  at::Tensor tokens_, results_;        // results_: bytes, on the host once done_
  std::shared_ptr<cuda::Event> done_;
  std::int64_t rows_ = 0, vocab_ = 0, most_top_ = 0;
};

}  // namespace nanochat::ops
