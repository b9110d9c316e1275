#pragma once
// Tensors in one file or in several: their names, shapes and types without
// reading them, and their elements. Models are loaded, imported and exported from
// this, whatever the format: safetensors.h, sharded_safetensors.h, torch_file.h.

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace nanochat {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct StoredTensor {
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;
  std::size_t begin = 0, end = 0;  // byte range in its file
};

// Immutable after construction and thread-safe.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const std::filesystem::path& path() const = 0;  // for messages
  // All files that have elements.
  virtual std::vector<std::filesystem::path> files() const { return {path()}; }
  virtual const std::map<std::string, StoredTensor>& entries() const = 0;
  // Copies into `target` and converts between floating types. Throws CheckpointError
  // for a missing tensor, a different shape, or types that cannot be converted.
  virtual void read_into(const std::string& name, at::Tensor& target) const = 0;

  bool contains(const std::string& name) const { return entries().contains(name); }
  // Description of one tensor. Throws CheckpointError if it is missing.
  const StoredTensor& entry(const std::string& name) const;
  // A copy of one tensor. Throws CheckpointError if it is missing.
  at::Tensor tensor(const std::string& name) const;
  // The element types of all tensors, "F32" or "BF16 and F32".
  std::string dtype_text() const;
};

// For implementations: copies the elements at `data`, the tensor's first byte, at any alignment. Messages begin
// with `where` and `name`. Large tensors are copied in parts of a few MiB; after_part is called after each.
void copy_elements(const StoredTensor& stored, const std::byte* data, const std::filesystem::path& where,
                   const std::string& name, at::Tensor& target, const std::function<void()>& after_part = {});

}  // namespace nanochat
