#pragma once
// The language-model head: logits, soft-cap (Gemma 2, 2024) and cross-entropy in one pass over chunks of rows.
// The full (tokens x vocabulary) logits are never stored, in any precision; the reference's gpt.py stores them.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace nanochat::ops {

struct HeadOptions {
  std::int64_t vocab_size = 0;   // logits beyond this are padding: no probability, no gradient
  double softcap = 15.0;         // softcap * tanh(z / softcap); 0: none
  // Bytes of logits in a chunk. 0: 1 GiB on a GPU, otherwise 8 MiB, but at least 1024 rows, because
  // each chunk passes once over the head's gradient, which is large for a large vocabulary.
  std::int64_t chunk_bytes = 0;
};

// Rows that have a target, int64, in their order; undefined where nearly all have one, so that picking them would save no time.
// targets: int32 (N) on the CPU, negative: ignored.
at::Tensor rows_with_target(const at::Tensor& targets);

// x: (N, C), w: (padded V, C) of one dtype (float32 or bfloat16); targets int32 (N), negative:
// ignored. losses (N) float32 receives the loss of each token in nats, 0 for ignored targets.
// rows: rows_with_target(), on the device of x. The head is not computed for the other rows.
void head_losses(const at::Tensor& x, const at::Tensor& w, const at::Tensor& targets, const HeadOptions& options,
                 at::Tensor& losses, const at::Tensor& rows = {});

// The same, and gradients of sum_i scale[i] * loss[i]. dx (N, C) is written;
// dw (padded V, C) float32 is accumulated, or undefined if the weight is not
// trained. scale: (N) float32; rows with an ignored target contribute nothing.
void head_losses_and_gradients(const at::Tensor& x, const at::Tensor& w, const at::Tensor& targets, const at::Tensor& scale,
                               const HeadOptions& options, at::Tensor& losses, at::Tensor& dx, at::Tensor& dw,
                               const at::Tensor& rows = {});

// Bytes that head_losses_and_gradients() takes while it runs, for x (rows, width) and w (padded V, width) of these options.
std::int64_t head_bytes(std::int64_t rows, std::int64_t width, std::int64_t padded_vocab_size,
                        const at::TensorOptions& options);

// Converts raw logits z (N, padded V) to soft-capped logits (N, vocab_size) float32, for sampling and evaluation.
at::Tensor softcap_logits(const at::Tensor& z, const HeadOptions& options);
// The same to `out`, on a GPU only. extremes: what DeviceSamples takes (ops/sample.h), or undefined.
void softcap_logits(const at::Tensor& z, const HeadOptions& options, at::Tensor& out, const at::Tensor& extremes = {});

}  // namespace nanochat::ops
