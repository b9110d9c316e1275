#pragma once
// Weights spread over several safetensors files, named by an index: {"metadata": {"total_size": BYTES}, "weight_map":
// {TENSOR: FILE}}. Source: huggingface_hub, serialization (split_torch_state_dict_into_shards).

#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"

namespace nanochat {

class ShardedSafetensors final : public TensorSource {
 public:
  // `index`: model.safetensors.index.json; its files lie beside it. Throws CheckpointError for an index that is no
  // such object or names a file elsewhere, and where a file and the index disagree about what it holds.
  explicit ShardedSafetensors(const std::filesystem::path& index);

  const std::filesystem::path& path() const override { return path_; }
  std::vector<std::filesystem::path> files() const override;
  const std::map<std::string, StoredTensor>& entries() const override { return entries_; }
  void read_into(const std::string& name, at::Tensor& target) const override;

 private:
  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, StoredTensor> entries_;
  std::map<std::string, std::size_t> file_of_;  // place in files_
};

// Writes `tensors` into `folder`: model.safetensors when they fit into `max_bytes` (0: always), else files
// model-00001-of-0000N.safetensors of at most that many bytes of elements, or one tensor, and their index. Returns
// the names of what it wrote.
std::vector<std::string> write_weights(const std::filesystem::path& folder, const NamedTensors& tensors,
                                       std::int64_t max_bytes);

}  // namespace nanochat
