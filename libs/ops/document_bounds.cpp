#include "ops/document_bounds.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>

namespace nanochat::ops {
namespace {

// A copy on the device; to a GPU from pinned memory, so that it waits for nothing that the GPU still has to do.
at::Tensor to_device(const at::Tensor& host, at::Device device) {
  return device.is_cuda() ? host.pin_memory().to(device, /*non_blocking=*/true) : host.clone();
}

}  // namespace

DocumentBounds make_document_bounds(const at::Tensor& offsets, std::int64_t batch, std::int64_t time, at::Device device) {
  TORCH_CHECK(offsets.dim() == 1 && offsets.scalar_type() == at::kInt && offsets.is_contiguous() && offsets.is_cpu() &&
                  offsets.numel() >= 2,
              "documents: expected int32 offsets (S + 1) on the CPU, got ", offsets.scalar_type(), " ", offsets.sizes());
  const std::int32_t* first = offsets.const_data_ptr<std::int32_t>();
  DocumentBounds bounds{{first, first + offsets.numel()}, at::Tensor(), 0};
  TORCH_CHECK(bounds.offsets.front() == 0 && bounds.offsets.back() == batch * time, "documents: offsets from ",
              bounds.offsets.front(), " to ", bounds.offsets.back(), " do not fit ", batch, " x ", time, " positions");
  std::int64_t rows = 0;
  for (std::int64_t i = 0; i < bounds.count(); ++i) {
    const std::int64_t begin = first[i], length = first[i + 1] - begin;
    TORCH_CHECK(length > 0, "documents: document ", i, " has ", length, " positions");
    bounds.longest = std::max(bounds.longest, length);
    rows += begin % time == 0 ? 1 : 0;
  }
  TORCH_CHECK(rows == batch, "documents: ", batch - rows, " of ", batch, " rows begin inside a document");
  bounds.device_offsets = to_device(offsets, device);
  return bounds;
}

at::Tensor positions_in_documents(const DocumentBounds& documents) {
  const at::Tensor positions = at::empty({documents.offsets.back()}, at::kInt);
  std::int32_t* to = positions.data_ptr<std::int32_t>();
  for (std::int64_t i = 0; i < documents.count(); ++i) {
    const auto d = static_cast<std::size_t>(i);
    std::iota(to + documents.offsets[d], to + documents.offsets[d + 1], 0);
  }
  return to_device(positions, documents.device_offsets.device());
}

}  // namespace nanochat::ops
