#pragma once
// Safetensors files: an 8-byte little-endian header length, a JSON header, then the tensors' bytes. Format of the
// safetensors project, version 0.x; see docs/formats/checkpoint.md.

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/mapped_file.h"

namespace nanochat {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Writes atomically, tensors in the given order (made contiguous), data aligned to 64 bytes. Throws IoError.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// A mapped file. The constructor checks header length, JSON, dtypes, shapes, that byte ranges lie inside the file, match
// the shapes and do not overlap; it throws CheckpointError naming the file and tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  struct Entry {
    at::ScalarType dtype;
    std::vector<std::int64_t> shape;
    std::size_t begin = 0, end = 0;  // byte range in the file
  };
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return entries_.contains(name); }
  // A copy of one tensor. Throws CheckpointError when it is missing.
  at::Tensor tensor(const std::string& name) const;
  // Copies into `target`, converting between floating types. Throws CheckpointError on a missing tensor or a shape that
  // differs.
  void read_into(const std::string& name, at::Tensor& target) const;

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace nanochat
