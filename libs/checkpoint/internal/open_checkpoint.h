#pragma once
// Internal to checkpoint: the parts of a checkpoint, before its weights are read.

#include <filesystem>
#include <memory>

#include <nlohmann/json.hpp>

#include "checkpoint/tensor_source.h"
#include "model/config.h"

namespace nanochat {

class Tokenizer;

struct OpenCheckpoint {
  std::filesystem::path folder;
  GptConfig config;
  nlohmann::json training_state;  // null if absent, or not that of these weights
  std::unique_ptr<TensorSource> weights;
};

// `path`: as find_checkpoint. Throws CheckpointError, also if the weights do not fit the configuration.
OpenCheckpoint open_checkpoint(const std::filesystem::path& path);
// The weights of a safetensors file or of an index.
std::unique_ptr<TensorSource> open_weights(const std::filesystem::path& path);
// Compares the weight files with training_state.json if it lists them. Throws CheckpointError.
void verify_weights(const OpenCheckpoint& checkpoint);
// Null if the folder has none. Throws CheckpointError if its vocabulary is larger than the model's.
std::shared_ptr<const Tokenizer> checkpoint_tokenizer(const OpenCheckpoint& checkpoint);
// True if load_tokenizer finds a tokenizer in the folder.
bool has_tokenizer(const std::filesystem::path& folder);

}  // namespace nanochat
