#pragma once
// Samples the next token of each row of logits (the steps are in ops/row_sampler.h). Row by row on a CPU; all rows in one
// kernel on a GPU, where the logits stay on the device. The token of a row is the same on both, whatever the other rows.
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
  std::string error;              // the reason if there is no token: a logit is NaN or +Inf, or no token is allowed
};

// logits: (rows, vocab) float32, dense.
std::vector<SampledRow> sample(const at::Tensor& logits, std::span<const SampleRow> rows);

namespace cuda {
class Event;
}

// On a GPU: room for the most likely token of each slice of rows of logits, which softcap_logits() finds while it writes them.
// int64 (rows, slices, 2).
at::Tensor logit_extremes(std::int64_t rows, std::int64_t vocab, at::Device device);
// Throws if they do not fit such logits, or have room for fewer rows.
void check_extremes(const at::Tensor& extremes, const at::Tensor& logits);

// The same on a GPU without waiting for it: the tokens may go into the next pass of the model before the host has them.
class DeviceSamples {
 public:
  // tokens: where they go, int32 with at least as many elements as there are rows, on the device of the logits; undefined:
  // memory of its own. inputs: int32, of SampleRow::last_input. extremes: those of the logits; undefined: they are looked for.
  DeviceSamples(const at::Tensor& logits, std::span<const SampleRow> rows, at::Tensor tokens = {},
                const at::Tensor& inputs = {}, const at::Tensor& extremes = {});
  // int32 (rows) on the device; -1 where there is an error.
  const at::Tensor& tokens() const { return tokens_; }
  // Waits for the draws, and for nothing that was enqueued behind them.
  std::vector<SampledRow> read() const;

 private:
  at::Tensor tokens_, results_;  // results_: bytes, on the host once done_
  std::shared_ptr<cuda::Event> done_;
  std::int64_t rows_ = 0, vocab_ = 0, most_top_ = 0;
};

}  // namespace nanochat::ops
