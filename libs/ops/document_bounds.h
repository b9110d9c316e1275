#pragma once
// Where documents lie in the rows of a batch, for attention that does not cross from one into the next: the `cu_seqlens`
// (cumulative sequence lengths) of FlashAttention's variable-length kernels.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace nanochat::ops {

// The N = B * T positions of a batch as consecutive documents. Every row begins with a document.
struct DocumentBounds {
  std::vector<std::int32_t> offsets;  // S + 1: the first position of each document, and N; cu_seqlens
  at::Tensor device_offsets;          // the same, int32 (S + 1), where the batch is
  std::int64_t longest = 0;           // positions of the longest document

  std::int64_t count() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

// offsets: int32 (S + 1) on the CPU. Checks that they rise from 0 to batch * time and include the beginning of every row.
DocumentBounds make_document_bounds(const at::Tensor& offsets, std::int64_t batch, std::int64_t time, at::Device device);

// int32 (N) on the device: the distance of each position from the beginning of its document.
at::Tensor positions_in_documents(const DocumentBounds& documents);

}  // namespace nanochat::ops
