#include "training/trainer/batch_tensors.h"

#include <ATen/ops/from_blob.h>

namespace nanochat {
namespace {

// from_blob takes a mutable pointer; nothing writes through these views.
template <class T>
at::Tensor view_of(const std::vector<T>& values, const TokenBatch& batch, at::ScalarType type) {
  TORCH_CHECK(static_cast<std::int64_t>(values.size()) == batch.rows * batch.sequence_len, "batch of ", batch.rows, " x ",
              batch.sequence_len, " has ", values.size(), " tokens");
  return at::from_blob(const_cast<T*>(values.data()), {batch.rows, batch.sequence_len}, type);
}

}  // namespace

at::Tensor inputs_of(const TokenBatch& batch) { return view_of(batch.inputs, batch, at::kInt); }
at::Tensor targets_of(const TokenBatch& batch) { return view_of(batch.targets, batch, at::kInt); }
at::Tensor weights_of(const TokenBatch& batch) {
  return batch.weights.empty() ? at::Tensor() : view_of(batch.weights, batch, at::kFloat);
}
at::Tensor documents_of(const TokenBatch& batch) {
  if (batch.documents.empty()) return {};
  return at::from_blob(const_cast<std::int32_t*>(batch.documents.data()), {static_cast<std::int64_t>(batch.documents.size())},
                       at::kInt);
}

}  // namespace nanochat
