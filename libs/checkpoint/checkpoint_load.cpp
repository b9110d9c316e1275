#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <set>
#include <system_error>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_files.h"
#include "checkpoint/internal/model_tensors.h"
#include "checkpoint/internal/open_checkpoint.h"
#include "checkpoint/internal/sharded_safetensors.h"
#include "checkpoint/json_file.h"
#include "checkpoint/model_config.h"
#include "checkpoint/run_folder.h"
#include "core/errors.h"
#include "core/git_lfs.h"
#include "core/mapped_file.h"
#include "core/sha256.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

json check_training_state(json state, const fs::path& path) {
  const auto fail = [&](const std::string& what) { throw CheckpointError(path.string() + ": " + what); };
  const auto version = state.find("format_version");
  if (version == state.end()) fail("\"format_version\" is missing");
  if (*version != kTrainingStateVersion) {
    fail("format_version is " + version->dump() + ", expected " + std::to_string(kTrainingStateVersion) +
         "; a newer program wrote it, or it is damaged");
  }
  const auto checksum = state.find("checksum");
  if (checksum == state.end() || *checksum != training_state_checksum(state)) {
    fail(
        "its checksum is not that of its contents; it was damaged or changed (delete it to use the weights as they "
        "are)");
  }
  const auto list = state.find("sha256");
  if (list == state.end() || !list->is_object()) fail("\"sha256\" must be an object");
  return state;
}

json read_training_state(const fs::path& folder) {
  const fs::path path = folder / kTrainingStateFile;
  if (!is_file(path)) return nullptr;
  return check_training_state(read_json_object(path), path);
}

// Compares one file with the list of training_state.json; false when the list does not name it.
bool verify_file(const fs::path& path, const json& training_state) {
  const json& list = training_state.at("sha256");  // of save_checkpoint's own making: see its checksum
  const auto digest = list.find(path.filename().string());
  if (digest == list.end()) return false;
  if (!is_file(path)) {
    throw CheckpointError(path.string() + ": is missing, though " + kTrainingStateFile + " lists it");
  }
  try {
    refuse_lfs_pointer(path);
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
  if (*digest != sha256_hex_of_file(path)) {
    throw CheckpointError(path.string() + ": its SHA-256 differs from the one in " + kTrainingStateFile +
                          "; it was damaged, or changed afterwards (then delete " + kTrainingStateFile +
                          " to use it as it is)");
  }
  return true;
}

bool has_weights(const fs::path& folder) { return is_file(folder / kWeightsFile) || is_file(folder / kWeightsIndexFile); }

bool is_weights_file(const fs::path& path) {
  return path.extension() == ".safetensors" || path.filename().string().ends_with(".safetensors.index.json");
}

// The newest checkpoint of a run; nullopt when it has none.
std::optional<fs::path> newest_of_run(const fs::path& run) {
  const fs::path checkpoints = run / "checkpoints";
  if (has_weights(checkpoints / "latest")) return fs::canonical(checkpoints / "latest");
  const std::vector<std::int64_t> steps = RunFolder::checkpoint_steps(run);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path folder = RunFolder::checkpoint_path(run, *step);
    if (has_weights(folder)) return folder;
  }
  return std::nullopt;
}

}  // namespace

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

MappedFile map_checkpoint_file(const fs::path& path) {
  try {
    return MappedFile(path);
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
}

std::string training_state_checksum(const json& state) {
  json rest = state;
  rest.erase("checksum");
  return sha256_hex(rest.dump(-1, ' ', false, json::error_handler_t::replace));
}

json parse_training_state(std::string_view text, const fs::path& path) {
  return check_training_state(parse_json_object(text, path.string()), path);
}

fs::path find_checkpoint(const fs::path& given) {
  const fs::path path = locate_run(given);
  if (is_file(path)) {
    if (is_weights_file(path)) return path;
    throw CheckpointError(path.string() + ": is a file, expected a checkpoint folder, a run folder or a .safetensors file");
  }
  if (!is_folder(path)) {
    throw CheckpointError(path.string() + ": no such checkpoint or run; there is no " + places_of_run(path));
  }
  if (has_weights(path)) return fs::canonical(path);
  if (is_folder(path / "checkpoints")) {
    if (auto newest = newest_of_run(path)) return *newest;
    throw CheckpointError(path.string() + ": this run has no checkpoint yet");
  }
  throw CheckpointError(path.string() + ": holds neither " + kWeightsFile + " (a checkpoint) nor checkpoints/ (a run)");
}

std::unique_ptr<TensorSource> open_weights(const fs::path& path) {
  if (path.extension() == ".json") return std::make_unique<ShardedSafetensors>(path);
  return std::make_unique<SafetensorsFile>(path);
}

OpenCheckpoint open_checkpoint(const fs::path& path) {
  const fs::path found = find_checkpoint(path);
  fs::path weights = found;
  if (is_folder(found)) weights /= is_file(found / kWeightsFile) ? kWeightsFile : kWeightsIndexFile;
  OpenCheckpoint result;
  result.folder = weights.has_parent_path() ? weights.parent_path() : fs::path(".");
  const fs::path config = result.folder / kConfigFile;
  result.config = from_hugging_face_config(read_json_object(config), config);
  // Beside other weights (a file of its own name) lies the state of other weights.
  const bool of_folder = weights.filename() == kWeightsFile || weights.filename() == kWeightsIndexFile;
  if (of_folder) result.training_state = read_training_state(result.folder);
  result.weights = open_weights(weights);
  check_model_tensors(result.config, *result.weights, Naming::kHuggingFace, kConfigFile);
  return result;
}

void verify_weights(const OpenCheckpoint& checkpoint) {
  if (!checkpoint.training_state.is_object()) return;
  for (const fs::path& file : checkpoint.weights->files()) verify_file(file, checkpoint.training_state);
  for (const char* name : {kConfigFile, "tokenizer.json", "tokenizer.model"}) {
    verify_file(checkpoint.folder / name, checkpoint.training_state);
  }
}

bool has_tokenizer(const fs::path& folder) {
  return is_file(folder / "tokenizer.json") || is_file(folder / "tokenizer.model") || is_file(folder / "tokenizer.pkl");
}

std::shared_ptr<const Tokenizer> checkpoint_tokenizer(const OpenCheckpoint& checkpoint) {
  if (!has_tokenizer(checkpoint.folder)) return nullptr;
  auto tokenizer = load_tokenizer(checkpoint.folder);
  if (tokenizer->vocab_size() <= checkpoint.config.vocab_size) return tokenizer;
  throw CheckpointError(checkpoint.folder.string() + ": its tokenizer has " + std::to_string(tokenizer->vocab_size()) +
                        " tokens, but its model only " + std::to_string(checkpoint.config.vocab_size) +
                        "; they do not belong together");
}

StoredModel open_model(const fs::path& path) {
  const OpenCheckpoint opened = open_checkpoint(path);
  verify_weights(opened);
  return {.folder = opened.folder,
          .weights = opened.weights->path(),
          .config = opened.config,
          .tokenizer = checkpoint_tokenizer(opened),
          .training_state = opened.training_state};
}

void read_weights(const StoredModel& stored, Gpt& model) {
  TORCH_CHECK(model.config() == stored.config, "read_weights: a model of another configuration");
  const std::unique_ptr<TensorSource> weights = open_weights(stored.weights);
  for (Parameter& parameter : model.parameters()) {
    model.set_value(parameter,
                    [&](at::Tensor& value) { read_model_tensor(parameter.spec, *weights, Naming::kHuggingFace, value); });
  }
  model.refresh_compute();
}

LoadedModel load_model(const fs::path& path, at::ScalarType dtype, at::Device device, Purpose purpose) {
  const StoredModel stored = open_model(path);
  auto model = std::make_unique<Gpt>(stored.config, dtype, device, purpose);
  read_weights(stored, *model);
  return {std::move(model), stored.folder, stored.tokenizer, stored.training_state};
}

std::string optimizer_file_name(int rank, int ranks) {
  return "optimizer.rank-" + std::to_string(rank) + "-of-" + std::to_string(ranks) + ".safetensors";
}

std::vector<fs::path> optimizer_files(const fs::path& checkpoint) {
  std::error_code ignored;
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(checkpoint, ignored)) {
    int rank = 0, ranks = 0;
    const std::string name = entry.path().filename().string();
    if (std::sscanf(name.c_str(), "optimizer.rank-%d-of-%d", &rank, &ranks) != 2 || name != optimizer_file_name(rank, ranks))
      continue;
    if (rank < 0 || rank >= ranks) continue;
    if (files.empty()) files.resize(static_cast<std::size_t>(ranks));
    if (files.size() != static_cast<std::size_t>(ranks)) {
      throw CheckpointError(entry.path().string() + ": is one of " + std::to_string(ranks) +
                            " files, but there are also files of " + std::to_string(files.size()) +
                            "; they do not belong together");
    }
    files[static_cast<std::size_t>(rank)] = entry.path();
  }
  for (std::size_t rank = 0; rank < files.size(); ++rank) {
    if (!files[rank].empty()) continue;
    throw CheckpointError((checkpoint / optimizer_file_name(static_cast<int>(rank), static_cast<int>(files.size()))).string() +
                          ": is missing; the optimizer's state cannot be read without it");
  }
  return files;
}

namespace {

// The optimizer's state as several processes wrote it. Files are checked when they are first read.
class OptimizerState {
 public:
  OptimizerState(const fs::path& folder, json training_state)
      : paths_(optimizer_files(folder)), training_state_(std::move(training_state)) {
    if (paths_.empty()) {
      throw CheckpointError((folder / optimizer_file_name(0, 1)).string() +
                            ": no such file; this checkpoint was saved without what resuming needs");
    }
    if (paths_.size() == 1) verify(0);
    for (const fs::path& path : paths_) files_.push_back(std::make_unique<SafetensorsFile>(path));
  }

  const fs::path& path() const { return paths_.front(); }
  std::size_t tensors() const {
    std::set<std::string> names;
    for (const auto& file : files_) {
      for (const auto& [name, entry] : file->entries()) names.insert(name);
    }
    return names.size();
  }

  // The whole tensor, written by one process.
  bool read_whole(const std::string& name, at::Tensor& target) const {
    if (files_.size() > 1) return false;
    files_.front()->read_into(name, target);
    return true;
  }
  // Rows from first_row on of the whole tensor.
  void read_into(const std::string& name, std::int64_t first_row, at::Tensor& target) {
    std::int64_t begin = 0, read = 0;  // rows of the whole before this file; rows of the target
    const std::int64_t rows = target.size(0);
    for (std::size_t i = 0; i < files_.size(); ++i) {
      const auto entry = files_[i]->entries().find(name);
      if (entry == files_[i]->entries().end()) continue;
      const std::vector<std::int64_t>& shape = entry->second.shape;
      const std::int64_t end = begin + (shape.empty() ? 0 : shape[0]);
      const std::int64_t from = std::max(begin, first_row), to = std::min(end, first_row + rows);
      if (from < to) {
        verify(i);
        if (from == begin && to == end && to - from == rows) {
          files_[i]->read_into(name, target);
        } else {
          std::vector<std::int64_t> part_shape = target.sizes().vec();
          part_shape[0] = end - begin;
          at::Tensor part = at::empty(part_shape, target.options());
          files_[i]->read_into(name, part);
          target.narrow(0, from - first_row, to - from).copy_(part.narrow(0, from - begin, to - from));
        }
        read += to - from;
      }
      begin = end;
    }
    if (begin == 0) throw CheckpointError(path().string() + ": tensor " + name + " is missing");
    if (read != rows) {
      throw CheckpointError(path().string() + ": the state has " + std::to_string(begin) + " rows of " + name + ", but " +
                            std::to_string(rows) + " from row " + std::to_string(first_row) + " on are needed");
    }
  }

 private:
  void verify(std::size_t i) {
    if (training_state_.is_object() && verified_.insert(i).second) verify_file(paths_[i], training_state_);
  }

  std::vector<fs::path> paths_;
  json training_state_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::set<std::size_t> verified_;
};

}  // namespace

bool has_optimizer_state(const fs::path& checkpoint) {
  const fs::path found = find_checkpoint(checkpoint);
  return !optimizer_files(is_folder(found) ? found : found.parent_path()).empty();
}

void load_optimizer_state(const fs::path& checkpoint, NamedTensors& state, const std::vector<std::int64_t>& first_rows) {
  const fs::path found = find_checkpoint(checkpoint), folder = is_folder(found) ? found : found.parent_path();
  OptimizerState stored(folder, read_training_state(folder));
  if (first_rows.empty() && stored.tensors() != state.size()) {
    throw CheckpointError(stored.path().string() + ": holds " + std::to_string(stored.tensors()) + " tensors, expected " +
                          std::to_string(state.size()));
  }
  for (std::size_t i = 0; i < state.size(); ++i) {
    auto& [name, tensor] = state[i];
    if (first_rows.empty() && stored.read_whole(name, tensor)) continue;
    stored.read_into(name, first_rows.empty() ? 0 : first_rows[i], tensor);
  }
}

CheckpointSummary describe_checkpoint(const fs::path& path) {
  const OpenCheckpoint opened = open_checkpoint(path);
  CheckpointSummary summary;
  summary.folder = opened.folder;
  summary.weights = opened.weights->path();
  summary.config = opened.config;
  summary.dtype = opened.weights->dtype_text();
  for (const fs::path& file : opened.weights->files()) summary.weight_bytes += fs::file_size(file);
  summary.has_optimizer = !optimizer_files(opened.folder).empty();
  summary.has_tokenizer = has_tokenizer(opened.folder);
  summary.training_state = opened.training_state;
  return summary;
}

std::size_t verify_checkpoint(const fs::path& path) {
  const fs::path found = find_checkpoint(path);
  if (!is_folder(found)) return 0;
  const json state = read_training_state(found);
  if (!state.is_object()) return 0;
  std::size_t files = 0;
  for (const auto& [name, digest] : state.at("sha256").items())
    files += verify_file(found / fs::path(name).filename(), state) ? 1 : 0;
  return files;
}

}  // namespace nanochat
