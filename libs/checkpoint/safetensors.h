#pragma once
// Safetensors files: an 8-byte little-endian header length, a JSON header, then the tensors' bytes. Format of the
// safetensors project (github.com/huggingface/safetensors, README and safetensors/src/tensor.rs); byte by byte in
// docs/formats/checkpoint.md.
//
// Element types: BOOL, U8, I8, I16, I32, I64, F16, BF16, F32, F64. Tensors are dense, row-major, little-endian.

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>

#include "checkpoint/tensor_source.h"
#include "core/mapped_file.h"

namespace nanochat {

// Writes atomically. The data begins at a multiple of 64 bytes. Tensors are in the given order, wider
// element types first, so each is aligned to its element size. Any strides and devices are accepted. Throws
// IoError, and c10::Error for a name that occurs twice, an undefined tensor or an unsupported element type.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// A mapped file, immutable and thread-safe. The constructor checks header length, JSON, dtypes and shapes,
// and that the byte ranges match the shapes and cover the data exactly, without gap or overlap. It throws
// CheckpointError with file and tensor. Nothing is allocated by a size that the file only claims.
class SafetensorsFile final : public TensorSource {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  SafetensorsFile(MappedFile file, std::filesystem::path name);  // of bytes in memory; messages call them `name`

  using Entry = StoredTensor;
  const std::filesystem::path& path() const override { return path_; }
  const std::map<std::string, Entry>& entries() const override { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  void read_into(const std::string& name, at::Tensor& target) const override;

 private:
  void check_coverage(std::size_t data_begin) const;

  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace nanochat
