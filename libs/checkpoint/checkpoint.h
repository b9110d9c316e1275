#pragma once
// A checkpoint: a folder that any Hugging Face user can open (model.safetensors, config.json, generation_config.json,
// the tokenizer's files) and that training resumes from (training_state.json, optimizer.rank-R-of-W.safetensors: one
// file for each process that shares the state of the optimizer).
// Written beside its final name, fsynced and renamed, so that a reader never sees half of one. Every file is
// described in docs/formats/checkpoint.md. Functions are thread-safe for different folders.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors.h"
#include "model/gpt.h"

namespace nanochat {

class MessageBoard;
class Tokenizer;

inline constexpr int kTrainingStateVersion = 1;  // "format_version" of training_state.json

// Of one of several processes that write a checkpoint together. Each writes its part of the optimizer's state; rank 0
// writes the rest, and commits when it has heard from all. A part that fails fails the save in every process.
struct SharedSave {
  MessageBoard* board = nullptr;  // null: this process is alone
  int rank = 0, ranks = 1;
  std::int64_t number = 0;        // of the save, the same in all processes and never used before
};

struct CheckpointContents {
  const GptConfig* config = nullptr;
  NamedTensors weights;                  // Hugging Face names, float32
  NamedTensors optimizer;                // empty: not saved
  const Tokenizer* tokenizer = nullptr;  // null: none
  // Step, stage, loader, loop, configuration: the state that training needs to resume. save_checkpoint adds
  // "format_version", "versions" (program, LibTorch) and the "sha256" of every other file of the folder.
  nlohmann::json training_state;
  SharedSave shared = {};
  bool weights_are_copies = false;  // nobody changes `weights` any more, so CheckpointSaver need not copy them
};

// Replaces an existing folder of that name; missing parents are made. Throws IoError; a failure leaves what was there
// before. Where several processes save, all call it, and it returns when the checkpoint stands; those but rank 0 use only
// `optimizer` of the contents. Throws DistributedError when the run ends meanwhile.
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

// Whether a checkpoint has the optimizer's state: one that was exported or imported has none. Throws as find_checkpoint, and
// CheckpointError if one of several files is missing.
bool has_optimizer_state(const std::filesystem::path& checkpoint);

// Copies the optimizer's state of a checkpoint into tensors of the same names and shapes. Throws CheckpointError.
//
// first_rows: for a process that has a part of the state, the row of the whole tensor that each of its tensors begins
// with. However many processes wrote the checkpoint, and whatever the part of each: a tensor's rows lie in their files in
// the order of ranks.
void load_optimizer_state(const std::filesystem::path& checkpoint, NamedTensors& state,
                          const std::vector<std::int64_t>& first_rows = {});

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
