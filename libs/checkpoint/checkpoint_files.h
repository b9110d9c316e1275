#pragma once
// Internal to checkpoint: the names of its files.

namespace nanochat {

inline constexpr const char* kWeightsFile = "model.safetensors";
inline constexpr const char* kWeightsIndexFile = "model.safetensors.index.json";  // of weights in several files
inline constexpr const char* kConfigFile = "config.json";
inline constexpr const char* kGenerationConfigFile = "generation_config.json";
inline constexpr const char* kTokenizerConfigFile = "tokenizer_config.json";
inline constexpr const char* kTrainingStateFile = "training_state.json";
// One process holds the whole state; sharded states count ranks up.
inline constexpr const char* kOptimizerFile = "optimizer.rank-0-of-1.safetensors";

}  // namespace nanochat
