#pragma once
// What torch.save(model.state_dict(), path) writes: a zip archive with a pickle of names and tensors and an entry for
// the elements of each. Read as data (core/pickle.h): no class is looked up and nothing is executed. Byte by byte in
// docs/formats/torch-checkpoint.md. Source: torch/serialization.py (_save, _load), torch/_utils.py.
//
// LibTorch's own unpickler is not used: it takes the number of elements that a tensor claims without comparing it
// with the bytes that are there, so that a damaged file makes it read or allocate beyond them.

#include <map>
#include <string>

#include "checkpoint/tensor_source.h"
#include "checkpoint/zip_file.h"

namespace nanochat {

// A flat dictionary of dense tensors of the types float16, bfloat16, float32 and float64.
class TorchFile final : public TensorSource {
 public:
  // Compares every entry that holds elements with its CRC-32. Throws CheckpointError naming the file, and the tensor,
  // at fault: anything else than such a dictionary, two tensors that share elements included. `_orig_mod.`, which
  // torch.compile puts before names, is taken away.
  explicit TorchFile(const std::filesystem::path& path);
  TorchFile(MappedFile file, std::filesystem::path name);  // of bytes at hand; messages call them `name`

  const std::filesystem::path& path() const override { return archive_.path(); }
  const std::map<std::string, StoredTensor>& entries() const override { return entries_; }
  void read_into(const std::string& name, at::Tensor& target) const override;

 private:
  explicit TorchFile(ZipFile archive);

  ZipFile archive_;
  std::map<std::string, StoredTensor> entries_;
};

// Writes such a file atomically, for torch.load(path, weights_only=True), from tensors of those types in that order.
// Throws IoError.
void write_torch_file(const std::filesystem::path& path, const NamedTensors& tensors);

}  // namespace nanochat
