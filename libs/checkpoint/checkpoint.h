#pragma once
// A checkpoint: a folder that Hugging Face programs can load (model.safetensors, config.json, generation_config.json,
// the tokenizer's files) and from which training resumes (training_state.json, optimizer.rank-0-of-1.safetensors). It
// is written beside its final name, flushed with fsync and renamed: a reader never sees an incomplete one.
// docs/formats/checkpoint.md describes every file. Functions are thread-safe for different folders.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors.h"
#include "model/gpt.h"

namespace nanochat {

class Tokenizer;

inline constexpr int kTrainingStateVersion = 1;  // "format_version" of training_state.json

struct CheckpointContents {
  const GptConfig* config = nullptr;
  NamedTensors weights;                  // Hugging Face names, float32
  NamedTensors optimizer;                // empty: not saved
  const Tokenizer* tokenizer = nullptr;  // null: none
  // Step, stage, loader, loop, configuration: the state that training needs to resume. save_checkpoint adds
  // "format_version", "versions" (program, LibTorch) and the "sha256" of every other file of the folder.
  nlohmann::json training_state;
};

// Replaces an existing folder with that name and creates missing
// parents. Throws IoError; after a failure the old folder is unchanged.
void save_checkpoint(const std::filesystem::path& folder, const CheckpointContents& contents);

// Name and value of every parameter, for CheckpointContents::weights. These are the live tensors.
NamedTensors model_weights(const Gpt& model);

// `path`: a checkpoint folder (weights in model.safetensors, or in several files named by
// model.safetensors.index.json), a run folder (its checkpoints/latest, otherwise its newest checkpoint),
// or a .safetensors file or such an index with a config.json in the same folder. Returns the checkpoint
// folder, with links resolved, or the file. Throws CheckpointError with the places that were searched.
std::filesystem::path find_checkpoint(const std::filesystem::path& path);

// A model on disk, without its weights; read_weights() reads them into a model.
//
//   const StoredModel stored = open_model(path);
//   Gpt model(stored.config, at::kBFloat16);
//   read_weights(stored, model);
struct StoredModel {
  std::filesystem::path folder, weights;       // the checkpoint found; the .safetensors file, or the index of several
  GptConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;  // null if the folder has none
  nlohmann::json training_state;               // null if absent
};

// `path`: as find_checkpoint. Weights may have any floating type; tables may be stored with or without the
// vocabulary's padding. Throws CheckpointError with what is missing or wrong, including tensor names and shapes,
// and if a file differs from the SHA-256 in training_state.json. Throws TokenizerError for a damaged tokenizer.
StoredModel open_model(const std::filesystem::path& path);

// Reads each tensor directly into its parameter and converts it to its type. `model` must
// have stored.config. Needs only a few MiB in addition to the model. Throws CheckpointError.
void read_weights(const StoredModel& stored, Gpt& model);

struct LoadedModel {
  std::unique_ptr<Gpt> model;
  std::filesystem::path folder;                // of the checkpoint found
  std::shared_ptr<const Tokenizer> tokenizer;  // null if the folder has none
  nlohmann::json training_state;               // null if absent
};

// Both, into a new model. Throws as open_model; memory is allocated only after every shape has been compared.
LoadedModel load_model(const std::filesystem::path& path, at::ScalarType dtype, at::Device device = at::kCPU,
                       Purpose purpose = Purpose::kInference);

// Copies the optimizer's state of a checkpoint into tensors of the same names and shapes. Throws CheckpointError.
void load_optimizer_state(const std::filesystem::path& checkpoint, NamedTensors& state);

// Description of a checkpoint without reading its weights. Throws CheckpointError as load_model.
struct CheckpointSummary {
  std::filesystem::path folder, weights;  // weights: the .safetensors file, or the index of several
  GptConfig config;
  std::string dtype;                // of the weights: "F32", or "BF16 and F32"
  std::uintmax_t weight_bytes = 0;  // size of that file, or of all
  bool has_optimizer = false, has_tokenizer = false;
  nlohmann::json training_state;  // null if absent
};
CheckpointSummary describe_checkpoint(const std::filesystem::path& path);

// Compares every file in training_state.json with its SHA-256 and returns their number; 0 if
// there is no list. Throws CheckpointError with the first file that is missing or differs.
std::size_t verify_checkpoint(const std::filesystem::path& path);

}  // namespace nanochat
