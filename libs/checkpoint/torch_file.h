#pragma once
// Files of torch.save(model.state_dict(), path): a zip archive with a pickle of names and tensors, and an entry
// for the elements of each. Read as data (core/pickle.h): no class is looked up and nothing is executed.
// docs/formats/torch-checkpoint.md describes them. Source: torch/serialization.py (_save, _load), torch/_utils.py.
//
// LibTorch's own unpickler is not used. It does not compare the number of elements that a tensor
// claims with the available bytes, and so a damaged file makes it read or allocate out of bounds.

#include <map>
#include <string>

#include "checkpoint/tensor_source.h"
#include "checkpoint/zip_file.h"

namespace nanochat {

// A flat dictionary of dense tensors of the types float16, bfloat16, float32 and float64.
class TorchFile final : public TensorSource {
 public:
  // Compares every entry that has elements with its CRC-32. Throws CheckpointError with
  // the file and the tensor for anything but such a dictionary, including two tensors that
  // share elements. Removes the prefix `_orig_mod.` that torch.compile adds to names.
  explicit TorchFile(const std::filesystem::path& path);
  TorchFile(MappedFile file, std::filesystem::path name);  // of bytes in memory; messages call them `name`

  const std::filesystem::path& path() const override { return archive_.path(); }
  const std::map<std::string, StoredTensor>& entries() const override { return entries_; }
  void read_into(const std::string& name, at::Tensor& target) const override;

 private:
  explicit TorchFile(ZipFile archive);

  ZipFile archive_;
  std::map<std::string, StoredTensor> entries_;
};

// Writes such a file atomically, for torch.load(path, weights_only=True),
// with the tensors in the given order. Throws IoError.
void write_torch_file(const std::filesystem::path& path, const NamedTensors& tensors);

}  // namespace nanochat
