#pragma once
// Internal to checkpoint: a checkpoint taken apart, before its weights are read.

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
  nlohmann::json training_state;  // null when absent, or not that of these weights
  std::unique_ptr<TensorSource> weights;
};

// `path` as find_checkpoint takes it. Throws CheckpointError, also when the weights do not fit the configuration.
OpenCheckpoint open_checkpoint(const std::filesystem::path& path);
// The weights of a safetensors file or of an index.
std::unique_ptr<TensorSource> open_weights(const std::filesystem::path& path);
// Compares the files of the weights with training_state.json, where that lists them. Throws CheckpointError.
void verify_weights(const OpenCheckpoint& checkpoint);
// Null when the folder has none. Throws CheckpointError when its vocabulary is larger than the model's.
std::shared_ptr<const Tokenizer> checkpoint_tokenizer(const OpenCheckpoint& checkpoint);
// Whether load_tokenizer finds one in the folder.
bool has_tokenizer(const std::filesystem::path& folder);

}  // namespace nanochat
