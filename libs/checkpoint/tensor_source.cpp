#include "checkpoint/tensor_source.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>
#include <set>

#include "checkpoint/safetensors_dtype.h"
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

void copy_elements(const StoredTensor& stored, const std::byte* data, const std::filesystem::path& where,
                   const std::string& name, at::Tensor& target) {
  if (target.sizes() != c10::IntArrayRef(stored.shape)) {
    throw CheckpointError(where.string() + ": " + name + " has shape " + shape_text(stored.shape) + ", expected " +
                          shape_text(target.sizes()));
  }
  const bool floats = c10::isFloatingType(stored.dtype) && c10::isFloatingType(target.scalar_type());
  if (!floats && stored.dtype != target.scalar_type()) {
    throw CheckpointError(where.string() + ": " + name + " holds " +
                          std::string(safetensors_dtype_name(stored.dtype)) + ", expected " +
                          std::string(safetensors_dtype_name(target.scalar_type())));
  }
  const std::size_t bytes = stored.end - stored.begin;
  if (bytes == 0) return;
  if (stored.dtype == target.scalar_type() && target.is_contiguous() && target.is_cpu()) {
    std::memcpy(target.mutable_data_ptr(), data, bytes);
    return;
  }
  // Files of others may hold a tensor at an address that its elements must not be read from.
  if (reinterpret_cast<std::uintptr_t>(data) % c10::elementSize(stored.dtype) != 0) {
    at::Tensor aligned = at::empty(stored.shape, stored.dtype);
    std::memcpy(aligned.mutable_data_ptr(), data, bytes);
    target.copy_(aligned);
    return;
  }
  target.copy_(at::from_blob(const_cast<std::byte*>(data), stored.shape, at::TensorOptions().dtype(stored.dtype)));
}

}  // namespace nanochat
