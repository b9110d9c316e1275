#pragma once
// Tensors that lie in one file or in several: what is known of each without reading it, and their elements. What
// models are loaded, imported and exported from, whatever the format: safetensors.h, sharded_safetensors.h,
// torch_file.h.

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
  // Every file that holds elements.
  virtual std::vector<std::filesystem::path> files() const { return {path()}; }
  virtual const std::map<std::string, StoredTensor>& entries() const = 0;
  // Copies into `target`, converting between floating types. Throws CheckpointError on a missing tensor, a shape that
  // differs, or types that do not convert.
  virtual void read_into(const std::string& name, at::Tensor& target) const = 0;

  bool contains(const std::string& name) const { return entries().contains(name); }
  // What is known of one tensor. Throws CheckpointError when it is missing.
  const StoredTensor& entry(const std::string& name) const;
  // A copy of one tensor. Throws CheckpointError when it is missing.
  at::Tensor tensor(const std::string& name) const;
  // The element types of all, "F32" or "BF16 and F32".
  std::string dtype_text() const;
};

// For sources: copies the elements at `data`, the tensor's first byte, which may lie at any address. `where` and
// `name` begin messages. Large tensors are copied in parts of a few MiB; after_part is called after each.
void copy_elements(const StoredTensor& stored, const std::byte* data, const std::filesystem::path& where,
                   const std::string& name, at::Tensor& target, const std::function<void()>& after_part = {});

}  // namespace nanochat
