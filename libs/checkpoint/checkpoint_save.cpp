#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <string>
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
#include "distributed/communicator.h"
#include "runtime/versions.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

// Name and SHA-256 of every file but those that are `known`, hashed on as many threads as there are files and cores.
nlohmann::json hashes(const fs::path& folder, const nlohmann::json& known) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && !known.contains(entry.path().filename().string())) files.push_back(entry.path());
  }
  std::vector<std::string> digests(files.size());
  for_each_index(files.size(), 0, [&](std::size_t i) { digests[i] = sha256_hex_of_file(files[i]); });
  nlohmann::json result = known;
  for (std::size_t i = 0; i < files.size(); ++i) result[files[i].filename().string()] = digests[i];
  return result;
}

void write_optimizer(const fs::path& folder, const CheckpointContents& contents) {
  const SharedSave& shared = contents.shared;
  write_safetensors(folder / optimizer_file_name(shared.rank, shared.ranks), contents.optimizer, {{"format", "pt"}});
}

// What the processes of one save say to each other:
//
//   folder   rank 0: {"path"} of the folder under construction, or {"error"}
//   part/R   rank R: {"sha256"} of its file there, or {"error"}
//   end      rank 0: {} when the checkpoint stands, or {"error"}
class Conversation {
 public:
  explicit Conversation(const SharedSave& save) : save_(save) {}

  bool alone() const { return save_.board == nullptr; }
  void say(const std::string& what, const nlohmann::json& value) const {
    if (!alone()) save_.board->post(name(what), to_json_text(value));
  }
  // Throws IoError for an error.
  nlohmann::json hear(const std::string& what) const {
    const nlohmann::json value = nlohmann::json::parse(save_.board->wait(name(what)));
    if (value.contains("error")) throw IoError(value.at("error").get<std::string>());
    return value;
  }
  void say_error(const std::string& what, const std::exception& error) const {
    try {
      say(what, {{"error", error.what()}});
    } catch (const std::exception&) {  // the run has ended; so they know
    }
  }
  static std::string part(int rank) { return "part/" + std::to_string(rank); }

 private:
  std::string name(const std::string& what) const { return "save/" + std::to_string(save_.number) + "/" + what; }
  const SharedSave& save_;
};

// Of a process other than rank 0.
void save_part(const CheckpointContents& contents) {
  const Conversation others(contents.shared);
  const std::string mine = Conversation::part(contents.shared.rank);
  const fs::path folder = others.hear("folder").at("path").get<std::string>();
  try {
    write_optimizer(folder, contents);
    const fs::path file = folder / optimizer_file_name(contents.shared.rank, contents.shared.ranks);
    others.say(mine, {{"sha256", sha256_hex_of_file(file)}});
  } catch (const std::exception& error) {
    others.say_error(mine, error);
  }
  others.hear("end");
}

AtomicDirectory make_directory(const fs::path& folder) {
  const fs::path parent = fs::absolute(folder).parent_path();
  std::error_code error;
  fs::create_directories(parent, error);
  if (error) throw IoError(parent.string() + ": cannot create: " + error.message());
  return AtomicDirectory(folder);
}

void fill_and_commit(AtomicDirectory& directory, const CheckpointContents& contents, const Conversation& others) {
  const fs::path& path = directory.path();
  // The format entry is what transformers asks for before it reads tensors.
  write_safetensors(path / kWeightsFile, contents.weights, {{"format", "pt"}});
  if (!contents.optimizer.empty() || !others.alone()) write_optimizer(path, contents);

  write_hugging_face_files(path, *contents.config, contents.tokenizer, "float32");

  nlohmann::json known = nlohmann::json::object();
  for (int rank = 1; rank < contents.shared.ranks; ++rank) {
    try {
      known[optimizer_file_name(rank, contents.shared.ranks)] = others.hear(Conversation::part(rank)).at("sha256");
    } catch (const IoError& error) {
      throw IoError("rank " + std::to_string(rank) + ": " + error.what());
    }
  }
  nlohmann::json state = contents.training_state.is_null() ? nlohmann::json::object() : contents.training_state;
  state["format_version"] = kTrainingStateVersion;
  state["versions"] = {{"nanochat", program_version()}, {"libtorch", libtorch_version()}};
  state["sha256"] = hashes(path, known);
  // What is stored is what was hashed: text that is not UTF-8 is replaced once, here.
  state = nlohmann::json::parse(to_json_text(state));
  state["checksum"] = training_state_checksum(state);
  write_file_atomically(path / kTrainingStateFile, to_json_text(state));
  directory.commit();
}

}  // namespace

NamedTensors model_weights(const Gpt& model) {
  NamedTensors weights;
  for (const Parameter& parameter : model.parameters()) weights.emplace_back(parameter.name, parameter.value);
  return weights;
}

void save_checkpoint(const fs::path& folder, const CheckpointContents& contents) {
  if (contents.shared.rank != 0) return save_part(contents);
  TORCH_CHECK(contents.config != nullptr, "save_checkpoint: no config");
  TORCH_CHECK(contents.training_state.is_null() || contents.training_state.is_object(),
              "save_checkpoint: training_state must be an object");
  const Conversation others(contents.shared);
  const char* said = "folder";
  try {
    AtomicDirectory directory = make_directory(folder);
    others.say("folder", {{"path", directory.path().string()}});
    said = "end";
    fill_and_commit(directory, contents, others);
  } catch (const std::exception& error) {
    others.say_error(said, error);
    throw;
  }
  others.say("end", nlohmann::json::object());
}

}  // namespace nanochat
