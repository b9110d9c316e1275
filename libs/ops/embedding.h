#pragma once
// Token embedding: rows of a table, and the scatter-add of their gradients. ids: int32 (N), contiguous, on the CPU.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

// y[i] = table[ids[i]]. table: (V, C), y: (N, C) of the same dtype. An id out of range is a TORCH_CHECK error.
void embedding(const at::Tensor& table, const at::Tensor& ids, at::Tensor& y);

// dtable[ids[i]] += dy[i]; dtable (V, C) float32. Threads divide the rows by id, so sums
// are in the order of the tokens: results are equal bit for bit with any number of threads.
void embedding_backward(const at::Tensor& dy, const at::Tensor& ids, at::Tensor& dtable);

}  // namespace nanochat::ops
