#pragma once
// A batch as tensors for a model. All are views of the batch, which must outlive them.

#include <ATen/core/Tensor.h>

#include "data/batches/batch.h"

namespace nanochat {

at::Tensor inputs_of(const TokenBatch& batch);     // int32 (B, T)
at::Tensor targets_of(const TokenBatch& batch);    // int32 (B, T)
at::Tensor documents_of(const TokenBatch& batch);  // int32 (S + 1), the cu_seqlens, or undefined
at::Tensor weights_of(const TokenBatch& batch);    // float32 (B, T), or undefined

}  // namespace nanochat
