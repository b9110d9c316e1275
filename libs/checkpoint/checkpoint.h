#pragma once
// A checkpoint: a folder that any Hugging Face user can open (model.safetensors, config.json, generation_config.json,
// the tokenizer's files) and that training resumes from (training_state.json, optimizer.rank-0-of-1.safetensors).
// Written beside its final name, fsynced and renamed, so that a reader never sees half of one.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "checkpoint/safetensors.h"
#include "model/gpt.h"

namespace nanochat {

class Tokenizer;

struct CheckpointContents {
  const GptConfig* config = nullptr;
  NamedTensors weights;                 // Hugging Face names, float32
  NamedTensors optimizer;               // empty: not saved
  const Tokenizer* tokenizer = nullptr;  // null: none
  // step, stage, loader, loop, configuration: whatever training wants back. save_checkpoint adds "format_version",
  // "versions" (program, LibTorch) and "sha256" of every other file of the folder.
  nlohmann::json training_state;
};

// Replaces an existing folder of that name. Throws IoError; a failure leaves what was there before.
void save_checkpoint(const std::filesystem::path& folder, const CheckpointContents& contents);

// Name and value of every parameter, for CheckpointContents::weights.
NamedTensors model_weights(const Gpt& model);

struct LoadedModel {
  std::unique_ptr<Gpt> model;
  std::filesystem::path folder;                // of the checkpoint found
  std::shared_ptr<const Tokenizer> tokenizer;  // null when the folder has none
  nlohmann::json training_state;               // null when absent
};

// `path`: a checkpoint folder, a run folder (its checkpoints/latest) or a .safetensors file beside a config.json.
// Throws CheckpointError saying what is missing or does not fit, with tensor names and shapes.
std::filesystem::path find_checkpoint(const std::filesystem::path& path);
LoadedModel load_model(const std::filesystem::path& path, at::ScalarType dtype);

// Copies the optimizer's state of a checkpoint into tensors of the same names and shapes. Throws CheckpointError.
void load_optimizer_state(const std::filesystem::path& checkpoint, NamedTensors& state);

}  // namespace nanochat
