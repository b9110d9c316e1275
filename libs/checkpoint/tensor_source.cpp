#include "checkpoint/tensor_source.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "checkpoint/internal/safetensors_dtype.h"
#include "core/errors.h"

namespace nanochat {

const StoredTensor& TensorSource::entry(const std::string& name) const {
  const auto found = entries().find(name);
  if (found == entries().end()) throw CheckpointError(path().string() + ": tensor " + name + " is missing");
  return found->second;
}

at::Tensor TensorSource::tensor(const std::string& name) const {
  const StoredTensor& found = entry(name);
  at::Tensor result = at::empty(found.shape, found.dtype);
  read_into(name, result);
  return result;
}

std::string TensorSource::dtype_text() const {
  std::set<std::string> names;
  for (const auto& [name, entry] : entries()) names.emplace(safetensors_dtype_name(entry.dtype));
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : " and ") + name;
  return text;
}

namespace {

// Rows (n, ...) of the elements at `data`.
void copy_rows(const std::byte* data, at::ScalarType dtype, at::Tensor target) {
  const auto bytes = static_cast<std::size_t>(target.numel()) * c10::elementSize(dtype);
  if (dtype == target.scalar_type() && target.is_contiguous() && target.is_cpu()) {
    std::memcpy(target.mutable_data_ptr(), data, bytes);
    return;
  }
  // Files of others may hold a tensor at an address that its elements must not be read from.
  if (reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(dtype) != 0) {
    const at::Tensor aligned = at::empty(target.sizes(), dtype);
    std::memcpy(aligned.mutable_data_ptr(), data, bytes);
    target.copy_(aligned);
    return;
  }
  target.copy_(at::from_blob(const_cast<std::byte*>(data), target.sizes(), at::TensorOptions().dtype(dtype)));
}

}  // namespace

void copy_elements(const StoredTensor& stored, const std::byte* data, const std::filesystem::path& where,
                   const std::string& name, at::Tensor& target, const std::function<void()>& after_part) {
  if (target.sizes() != c10::IntArrayRef(stored.shape)) {
    throw CheckpointError(where.string() + ": " + name + " has shape " + shape_text(stored.shape) + ", expected " +
                          shape_text(target.sizes()));
  }
  const bool floats = c10::isFloatingType(stored.dtype) && c10::isFloatingType(target.scalar_type());
  if (!floats && stored.dtype != target.scalar_type()) {
    throw CheckpointError(where.string() + ": " + name + " holds " + std::string(safetensors_dtype_name(stored.dtype)) +
                          ", expected " + std::string(safetensors_dtype_name(target.scalar_type())));
  }
  const std::size_t bytes = stored.end - stored.begin;
  if (bytes == 0) return;
  constexpr std::size_t kPartBytes = std::size_t{16} << 20;
  const at::Tensor rows = target.dim() == 0 ? target.unsqueeze(0) : target;
  const std::size_t row_bytes = bytes / static_cast<std::size_t>(rows.size(0));
  const auto rows_of_part = static_cast<std::int64_t>(std::max<std::size_t>(1, kPartBytes / row_bytes));
  for (std::int64_t first = 0; first < rows.size(0); first += rows_of_part) {
    copy_rows(data + static_cast<std::size_t>(first) * row_bytes, stored.dtype,
              rows.narrow(0, first, std::min(rows_of_part, rows.size(0) - first)));
    if (after_part) after_part();
  }
}

}  // namespace nanochat
