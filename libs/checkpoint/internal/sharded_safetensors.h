#pragma once
// Weights in several safetensors files with an index: {"metadata": {"total_size": BYTES}, "weight_map":
// {TENSOR: FILE}}. Source: huggingface_hub, serialization (split_torch_state_dict_into_shards).

#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"

namespace nanochat {

class ShardedSafetensors final : public TensorSource {
 public:
  // `index`: model.safetensors.index.json, in the folder of its files. Throws CheckpointError for an index
  // of another form or with files elsewhere, and if a file and the index disagree about its tensors.
  explicit ShardedSafetensors(const std::filesystem::path& index);

  const std::filesystem::path& path() const override { return path_; }
  std::vector<std::filesystem::path> files() const override;
  const std::map<std::string, StoredTensor>& entries() const override { return entries_; }
  void read_into(const std::string& name, at::Tensor& target) const override;

 private:
  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, StoredTensor> entries_;
  std::map<std::string, std::size_t> file_of_;  // index in files_
};

// Writes `tensors` into `folder`: model.safetensors if they fit into `max_bytes` (0:
// always), otherwise files model-00001-of-0000N.safetensors with at most that many bytes
// of elements, or one tensor, and their index. Returns the names of the written files.
std::vector<std::string> write_weights(const std::filesystem::path& folder, const NamedTensors& tensors,
                                       std::int64_t max_bytes);

}  // namespace nanochat
