#pragma once
// Token embedding: rows of a table, and the scatter-add of their gradients. ids: int32 (N), contiguous, on the CPU.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

// y[i] = table[ids[i]]. table: (V, C), y: (N, C) of the same dtype. An id out of range is a TORCH_CHECK error.
void embedding(const at::Tensor& table, const at::Tensor& ids, at::Tensor& y);

// On a GPU only: y = rms_norm() of such rows in one pass. Input i is an id, or -1 - j for element j of `drawn` (int32), so that
// tokens which the host has not seen yet go back into the model; ids (int32, as inputs) become what the inputs stand for. Where
// an id is out of range, y is NaN.
void embedding_rms_norm(const at::Tensor& table, const at::Tensor& inputs, const at::Tensor& drawn, at::Tensor& ids,
                        at::Tensor& y, double eps);

// dtable[ids[i]] += dy[i]; dtable (V, C) float32. Rows are shared out by id, so sums keep the order of the tokens and
// repeat bit for bit whatever the number of threads.
void embedding_backward(const at::Tensor& dy, const at::Tensor& ids, at::Tensor& dtable);

}  // namespace nanochat::ops
