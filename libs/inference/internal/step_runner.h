#pragma once
// For the engine only: passes through the model and draws of tokens that may still be under way when these functions return.
// The engine starts a step before it reads what the step before it drew; an input of the model may be a token that only the
// device has.
//
//   runner->forward(batch, inputs, before);               // one input for each token of the batch
//   const at::Tensor logits = runner->logits(rows);       // rows: tokens of the batch
//   auto draws = runner->draw(logits, sample_rows);       // their `row` is one of those that logits() has put into `rows`
//   runner->forward(next, {StepRunner::drawn(0), ...}, before);  // token 0 of that draw()
//   for (const ops::SampledRow& row : draws->read()) ...  // waits

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "inference/internal/paged_kv_cache.h"
#include "ops/paged_attention.h"
#include "ops/sample.h"

namespace nanochat {

class Gpt;
struct EngineOptions;

// Prompt positions whose logits stand at a time: with a vocabulary of 65,536, 16 MiB.
inline constexpr std::int64_t kLogitRows = 64;

// Most tokens that a step draws: one for each sequence, and with speculative decoding drafted tokens up to kLogitRows.
std::int64_t most_draws(const EngineOptions& options);

class PendingDraws {
 public:
  virtual ~PendingDraws() = default;
  virtual std::vector<ops::SampledRow> read() = 0;  // waits for them
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // As an input of forward(): token i of the draw() before.
  static std::int32_t drawn(std::int64_t i) { return static_cast<std::int32_t>(-1 - i); }

  // Records and loads what the first steps would wait for.
  virtual void warm_up() = 0;
  // before: for each sequence of the batch, the token before its first one, or -1 at its beginning (PagedKvCache::set_batch).
  // The host knows it even if the first token was only drawn on the device.
  virtual void forward(const ops::PagedBatch& batch, std::span<const std::int32_t> inputs,
                       std::span<const std::int32_t> before) = 0;
  // Logits of such tokens of the last pass, valid until the next one. `rows` becomes where each of them lies in the result.
  virtual at::Tensor logits(std::vector<std::int64_t>& rows) = 0;
  // At most most_draws() rows. Their last_input: a token of the last pass.
  virtual std::unique_ptr<PendingDraws> draw(const at::Tensor& logits, std::span<const ops::SampleRow> rows) = 0;
};

// With kernels of a GPU (device_runner.cpp). Null where there are none for this cache.
std::unique_ptr<StepRunner> make_device_runner(Gpt& model, PagedKvCache& cache, const EngineOptions& options);
// Through the model's own passes, on any device: nothing is under way when these functions return.
std::unique_ptr<StepRunner> make_host_runner(Gpt& model, PagedKvCache& cache);

}  // namespace nanochat
