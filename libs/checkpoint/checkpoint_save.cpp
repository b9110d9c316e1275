#include <c10/util/Exception.h>

#include <algorithm>
#include <system_error>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_files.h"
#include "checkpoint/internal/hugging_face_files.h"
#include "checkpoint/json_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "core/thread_pool.h"
#include "runtime/versions.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

// Name and SHA-256 of every file, hashed on as many threads as there are files and cores.
nlohmann::json hashes(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::vector<std::string> digests(files.size());
  for_each_index(files.size(), 0, [&](std::size_t i) { digests[i] = sha256_hex_of_file(files[i]); });
  nlohmann::json result = nlohmann::json::object();
  for (std::size_t i = 0; i < files.size(); ++i) result[files[i].filename().string()] = digests[i];
  return result;
}

}  // namespace

NamedTensors model_weights(const Gpt& model) {
  NamedTensors weights;
  for (const Parameter& parameter : model.parameters()) weights.emplace_back(parameter.name, parameter.value);
  return weights;
}

void save_checkpoint(const fs::path& folder, const CheckpointContents& contents) {
  TORCH_CHECK(contents.config != nullptr, "save_checkpoint: no config");
  TORCH_CHECK(contents.training_state.is_null() || contents.training_state.is_object(),
              "save_checkpoint: training_state must be an object");
  std::error_code error;
  const fs::path parent = fs::absolute(folder).parent_path();
  fs::create_directories(parent, error);
  if (error) throw IoError(parent.string() + ": cannot create: " + error.message());

  AtomicDirectory directory(folder);
  const fs::path& path = directory.path();
  // The format entry is what transformers asks for before it reads tensors.
  write_safetensors(path / kWeightsFile, contents.weights, {{"format", "pt"}});
  if (!contents.optimizer.empty()) write_safetensors(path / kOptimizerFile, contents.optimizer, {{"format", "pt"}});

  write_hugging_face_files(path, *contents.config, contents.tokenizer, "float32");

  nlohmann::json state = contents.training_state.is_null() ? nlohmann::json::object() : contents.training_state;
  state["format_version"] = kTrainingStateVersion;
  state["versions"] = {{"nanochat", program_version()}, {"libtorch", libtorch_version()}};
  state["sha256"] = hashes(path);
  // What is stored is what was hashed: text that is not UTF-8 is replaced once, here.
  state = nlohmann::json::parse(to_json_text(state));
  state["checksum"] = training_state_checksum(state);
  write_file_atomically(path / kTrainingStateFile, to_json_text(state));
  directory.commit();
}

}  // namespace nanochat
