#include "checkpoint/internal/sharded_safetensors.h"

#include <cstdint>
#include <set>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint_files.h"
#include "checkpoint/json_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

// A line for each tensor: thousands of them take a fraction of this.
constexpr std::size_t kMaxIndexBytes = std::size_t{2} << 20;

}  // namespace

ShardedSafetensors::ShardedSafetensors(const fs::path& index) : path_(index) {
  const auto fail = [&](const std::string& what) { throw CheckpointError(path_.string() + ": " + what); };
  const nlohmann::json object = read_json_object(index, kMaxIndexBytes);
  const auto map = object.find("weight_map");
  if (map == object.end() || !map->is_object() || map->empty()) {
    fail("\"weight_map\" must be an object from tensors to files");
  }
  std::map<std::string, std::size_t> place_of;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) fail(tensor + " is mapped to no file name");
    const auto& name = file.get_ref<const std::string&>();
    if (name.find_first_of(std::string("/\\\0", 3)) != std::string::npos || name.empty() || name == "." || name == "..") {
      fail(tensor + " is mapped to \"" + name + "\", expected the name of a file beside the index");
    }
    const auto [place, is_new] = place_of.emplace(name, files_.size());
    if (is_new) files_.emplace_back(path_.parent_path() / name);
    file_of_.emplace(tensor, place->second);
    entries_.emplace(tensor, files_[place->second].entry(tensor));
  }
  for (std::size_t i = 0; i < files_.size(); ++i) {
    for (const auto& [tensor, entry] : files_[i].entries()) {
      const auto found = file_of_.find(tensor);
      if (found != file_of_.end() && found->second == i) continue;
      fail("says nothing of " + tensor + " in " + files_[i].path().filename().string() + ", or has it elsewhere");
    }
  }
}

std::vector<fs::path> ShardedSafetensors::files() const {
  std::vector<fs::path> paths;
  for (const SafetensorsFile& file : files_) paths.push_back(file.path());
  return paths;
}

void ShardedSafetensors::read_into(const std::string& name, at::Tensor& target) const {
  entry(name);  // throws when it is missing
  files_[file_of_.at(name)].read_into(name, target);
}

std::vector<std::string> write_weights(const fs::path& folder, const NamedTensors& tensors, std::int64_t max_bytes) {
  const std::map<std::string, std::string> format = {{"format", "pt"}};  // transformers asks for it
  std::vector<NamedTensors> shards;
  std::int64_t in_shard = 0, total = 0;
  for (const auto& named : tensors) {
    const auto bytes = static_cast<std::int64_t>(named.second.nbytes());
    if (shards.empty() || (max_bytes > 0 && in_shard + bytes > max_bytes && !shards.back().empty())) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(named);
    in_shard += bytes;
    total += bytes;
  }
  if (shards.size() <= 1) {
    write_safetensors(folder / kWeightsFile, tensors, format);
    return {kWeightsFile};
  }
  std::vector<std::string> names;
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = total;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    names.push_back(fmt::format("model-{:05d}-of-{:05d}.safetensors", i + 1, shards.size()));
    write_safetensors(folder / names.back(), shards[i], format);
    for (const auto& named : shards[i]) index["weight_map"][named.first] = names.back();
  }
  write_file_atomically(folder / kWeightsIndexFile, to_json_text(index));
  names.emplace_back(kWeightsIndexFile);
  return names;
}

}  // namespace nanochat
