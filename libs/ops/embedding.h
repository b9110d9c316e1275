#pragma once
// Token embedding: rows of a table, and the scatter-add of their gradients. ids: int32 (N), contiguous, on the CPU.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

// y[i] = table[ids[i]]. table: (V, C), y: (N, C) of the same dtype. An id out of range is a TORCH_CHECK error.
void embedding(const at::Tensor& table, const at::Tensor& ids, at::Tensor& y);

// On a GPU only: y = rms_norm() of rows of the table, in one pass. Input i is an id, or -1 - j for element j of `drawn`
// (int32), a token that the host has not read yet. ids (int32, as inputs) receives the resolved ids. If an id is out of range,
// y is NaN.
void embedding_rms_norm(const at::Tensor& table, const at::Tensor& inputs, const at::Tensor& drawn, at::Tensor& ids,
                        at::Tensor& y, double eps);

// The tokens of a batch sorted by id, for kernels that add up gradients by id on a GPU: one order serves all tables that the
// batch reads.
struct TokenOrder {
  at::Tensor ids;        // int32 (N), rising
  at::Tensor positions;  // int64 (N): where each id stands in the batch; rising among equal ids
};
// Undefined tensors on a CPU, where nothing needs them.
TokenOrder order_tokens(const at::Tensor& ids);

// dtable[ids[i]] += dy[i]; dtable (V, C) float32. Sums are repeatable bit for bit: on a CPU, threads divide the rows by id, and
// each sum is in the order of the tokens; on a GPU, they are taken over fixed shares of the sorted tokens. order: that of ids;
// without it, a GPU sorts them.
void embedding_backward(const at::Tensor& dy, const at::Tensor& ids, at::Tensor& dtable, const TokenOrder& order = {});

}  // namespace nanochat::ops
