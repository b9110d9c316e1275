#pragma once
// Samples the next token of each row of logits (the steps are in ops/row_sampler.h). Row by row on a CPU; all rows in one
// kernel on a GPU, where the logits stay on the device. The token of a row is the same on both, whatever the other rows.
//
//   std::vector<SampleRow> rows = {{.row = 0, .temperature = 0.0}, {.row = 1, .uniform = 0.25}};
//   for (const SampledRow& row : sample(logits, rows)) use(row.token.id);

#include <ATen/core/Tensor.h>

#include <cstdint>
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

// The same on a GPU without waiting: the tokens can go into the model's next pass before the host has them.
class DeviceSamples {
 public:
  DeviceSamples(const at::Tensor& logits, std::span<const SampleRow> rows);
  // int32 (rows) on the device; -1 for an error.
  const at::Tensor& tokens() const { return tokens_; }
  // Waits until the tokens are drawn.
  std::vector<SampledRow> read() const;

 private:
  at::Tensor tokens_, results_;  // results_: bytes, for read()
  std::int64_t rows_ = 0, vocab_ = 0, most_top_ = 0;
};

}  // namespace nanochat::ops
