#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <set>
#include <system_error>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_files.h"
#include "checkpoint/json_file.h"
#include "checkpoint/model_config.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/safetensors_dtype.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// A checkpoint taken apart: where its pieces are, and those that are read in any case.
struct Opened {
  fs::path folder, weights_path;
  GptConfig config;
  json training_state;  // null when absent, or not that of these weights
  SafetensorsFile weights;
};

json read_training_state(const fs::path& folder) {
  const fs::path path = folder / kTrainingStateFile;
  if (!is_file(path)) return nullptr;
  json state = read_json_object(path);
  const auto version = state.find("format_version");
  if (version != state.end() && *version != kTrainingStateVersion) {
    throw CheckpointError(path.string() + ": format_version is " + version->dump() + ", expected " +
                          std::to_string(kTrainingStateVersion) + "; a newer program wrote it, or it is damaged");
  }
  return state;
}

Opened open_checkpoint(const fs::path& path) {
  const fs::path found = find_checkpoint(path);
  const fs::path weights = is_folder(found) ? found / kWeightsFile : found;
  const fs::path folder = weights.has_parent_path() ? weights.parent_path() : fs::path(".");
  const fs::path config = folder / kConfigFile;
  GptConfig gpt_config = from_hugging_face_config(read_json_object(config), config);
  // Beside other weights (a file of its own name) lies the state of other weights.
  json state = weights.filename() == kWeightsFile ? read_training_state(folder) : json();
  return {folder, weights, gpt_config, std::move(state), SafetensorsFile(weights)};
}

// The tensors of `config` and nothing else, each of its shape: what Gpt's parameters are, without allocating them.
void check_tensors(const Opened& opened) {
  const GptConfig& c = opened.config;
  const auto fail = [&](const std::string& what) {
    throw CheckpointError(opened.weights_path.string() + ": " + what);
  };
  std::size_t expected = 0;
  const auto check = [&](const std::string& name, std::int64_t rows, std::int64_t columns, bool padded_vocabulary) {
    ++expected;
    const SafetensorsFile::Entry& entry = opened.weights.entry(name);
    if (!c10::isFloatingType(entry.dtype)) {
      fail(name + " holds " + std::string(safetensors_dtype_name(entry.dtype)) + ", expected F32, BF16 or F16");
    }
    const std::vector<std::int64_t> shape = {rows, columns};
    const bool unpadded = padded_vocabulary && entry.shape == std::vector<std::int64_t>{c.vocab_size, columns};
    if (entry.shape != shape && !unpadded) {
      fail(name + " has shape " + shape_text(entry.shape) + ", but " + kConfigFile + " asks for " +
           shape_text(shape));
    }
  };
  check("model.embed_tokens.weight", c.padded_vocab_size(), c.n_embd, true);
  for (std::int64_t layer = 0; layer < c.n_layer; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    check(prefix + "self_attn.q_proj.weight", c.n_head * c.head_dim(), c.n_embd, false);
    check(prefix + "self_attn.k_proj.weight", c.n_kv_head * c.head_dim(), c.n_embd, false);
    check(prefix + "self_attn.v_proj.weight", c.n_kv_head * c.head_dim(), c.n_embd, false);
    check(prefix + "self_attn.o_proj.weight", c.n_embd, c.n_head * c.head_dim(), false);
    check(prefix + "mlp.fc1.weight", c.intermediate_size, c.n_embd, false);
    check(prefix + "mlp.fc2.weight", c.n_embd, c.intermediate_size, false);
  }
  check("lm_head.weight", c.padded_vocab_size(), c.n_embd, true);
  if (opened.weights.entries().size() == expected) return;
  fail("holds " + std::to_string(opened.weights.entries().size()) + " tensors, but the " + std::to_string(c.n_layer) +
       " layers of " + kConfigFile + " have " + std::to_string(expected) + "; the two do not belong together");
}

// Compares one file with the list of training_state.json; false when the list does not name it.
bool verify_file(const fs::path& path, const json& training_state) {
  const auto list = training_state.find("sha256");
  if (list == training_state.end() || !list->is_object()) return false;
  const auto digest = list->find(path.filename().string());
  if (digest == list->end()) return false;
  if (!is_file(path)) {
    throw CheckpointError(path.string() + ": is missing, though " + kTrainingStateFile + " lists it");
  }
  if (*digest != sha256_hex_of_file(path)) {
    throw CheckpointError(path.string() + ": its SHA-256 differs from the one in " + kTrainingStateFile +
                          "; it was damaged, or changed afterwards (then delete " + kTrainingStateFile +
                          " to use it as it is)");
  }
  return true;
}

bool has_tokenizer(const fs::path& folder) {
  return is_file(folder / "tokenizer.json") || is_file(folder / "tokenizer.model");
}

// The newest checkpoint of a run; nullopt when it has none.
std::optional<fs::path> newest_of_run(const fs::path& run) {
  const fs::path checkpoints = run / "checkpoints";
  if (is_file(checkpoints / "latest" / kWeightsFile)) return fs::canonical(checkpoints / "latest");
  const std::vector<std::int64_t> steps = RunFolder::checkpoint_steps(run);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path folder = RunFolder::checkpoint_path(run, *step);
    if (is_file(folder / kWeightsFile)) return folder;
  }
  return std::nullopt;
}

}  // namespace

fs::path find_checkpoint(const fs::path& path) {
  if (is_file(path)) {
    if (path.extension() == ".safetensors") return path;
    throw CheckpointError(path.string() +
                          ": is a file, expected a checkpoint folder, a run folder or a .safetensors file");
  }
  if (!is_folder(path)) throw CheckpointError(path.string() + ": no such checkpoint or run");
  if (is_file(path / kWeightsFile)) return fs::canonical(path);
  if (is_file(path / "model.safetensors.index.json")) {
    throw CheckpointError(path.string() + ": its weights are spread over several files, expected one " +
                          kWeightsFile);
  }
  if (is_folder(path / "checkpoints")) {
    if (auto newest = newest_of_run(path)) return *newest;
    throw CheckpointError(path.string() + ": this run has no checkpoint yet");
  }
  throw CheckpointError(path.string() + ": holds neither " + kWeightsFile +
                        " (a checkpoint) nor checkpoints/ (a run)");
}

LoadedModel load_model(const fs::path& path, at::ScalarType dtype, at::Device device) {
  const Opened opened = open_checkpoint(path);
  check_tensors(opened);
  if (opened.training_state.is_object()) verify_file(opened.weights_path, opened.training_state);

  LoadedModel result;
  result.folder = opened.folder;
  result.training_state = opened.training_state;
  if (has_tokenizer(opened.folder)) {
    result.tokenizer = load_tokenizer(opened.folder);
    if (result.tokenizer->vocab_size() > opened.config.vocab_size) {
      throw CheckpointError(opened.folder.string() + ": its tokenizer has " +
                            std::to_string(result.tokenizer->vocab_size()) + " tokens, but its model only " +
                            std::to_string(opened.config.vocab_size) + "; they do not belong together");
    }
  }
  result.model = std::make_unique<Gpt>(opened.config, dtype, device);
  for (Parameter& parameter : result.model->parameters()) {
    const std::int64_t rows = opened.weights.entry(parameter.name).shape[0];
    at::Tensor stored = parameter.value.narrow(0, 0, rows);
    opened.weights.read_into(parameter.name, stored);
    if (rows < parameter.value.size(0)) parameter.value.narrow(0, rows, parameter.value.size(0) - rows).zero_();
  }
  result.model->refresh_compute();
  return result;
}

void load_optimizer_state(const fs::path& checkpoint, NamedTensors& state) {
  const fs::path found = find_checkpoint(checkpoint);
  const fs::path path = (is_folder(found) ? found : found.parent_path()) / kOptimizerFile;
  if (!is_file(path)) {
    throw CheckpointError(path.string() + ": no such file; this checkpoint was saved without what resuming needs");
  }
  const json training_state = read_training_state(path.parent_path());
  if (training_state.is_object()) verify_file(path, training_state);
  const SafetensorsFile file(path);
  if (file.entries().size() != state.size()) {
    throw CheckpointError(path.string() + ": holds " + std::to_string(file.entries().size()) + " tensors, expected " +
                          std::to_string(state.size()));
  }
  for (auto& [name, tensor] : state) file.read_into(name, tensor);
}

CheckpointSummary describe_checkpoint(const fs::path& path) {
  const Opened opened = open_checkpoint(path);
  check_tensors(opened);
  CheckpointSummary summary;
  summary.folder = opened.folder;
  summary.weights = opened.weights_path;
  summary.config = opened.config;
  std::set<std::string> dtypes;
  for (const auto& [name, entry] : opened.weights.entries()) dtypes.emplace(safetensors_dtype_name(entry.dtype));
  for (const std::string& dtype : dtypes) summary.dtype += (summary.dtype.empty() ? "" : " and ") + dtype;
  summary.weight_bytes = fs::file_size(opened.weights_path);
  summary.has_optimizer = is_file(opened.folder / kOptimizerFile);
  summary.has_tokenizer = has_tokenizer(opened.folder);
  summary.training_state = opened.training_state;
  return summary;
}

std::size_t verify_checkpoint(const fs::path& path) {
  const fs::path found = find_checkpoint(path);
  if (!is_folder(found)) return 0;
  const json state = read_training_state(found);
  if (!state.is_object() || !state.contains("sha256")) return 0;
  const json& list = state.at("sha256");
  if (!list.is_object())
    throw CheckpointError((found / kTrainingStateFile).string() + ": \"sha256\" must be an object");
  std::size_t files = 0;
  for (const auto& [name, digest] : list.items())
    files += verify_file(found / fs::path(name).filename(), state) ? 1 : 0;
  return files;
}

}  // namespace nanochat
