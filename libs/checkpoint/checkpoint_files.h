#pragma once
// Internal to checkpoint: file names, and reading of training_state.json.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

class MappedFile;

inline constexpr const char* kWeightsFile = "model.safetensors";
inline constexpr const char* kWeightsIndexFile = "model.safetensors.index.json";  // of weights in several files
inline constexpr const char* kConfigFile = "config.json";
inline constexpr const char* kGenerationConfigFile = "generation_config.json";
inline constexpr const char* kTokenizerConfigFile = "tokenizer_config.json";
inline constexpr const char* kTrainingStateFile = "training_state.json";

std::string optimizer_file_name(int rank, int ranks);  // optimizer.rank-0-of-1.safetensors
// The files of the optimizer's state in the order of ranks; empty when there is none. Throws CheckpointError when some are
// missing.
std::vector<std::filesystem::path> optimizer_files(const std::filesystem::path& checkpoint);

bool is_file(const std::filesystem::path& path);  // false also for a path that cannot be accessed
// Throws CheckpointError if the file cannot be opened or is not a file.
MappedFile map_checkpoint_file(const std::filesystem::path& path);

// SHA-256 of the object without its key "checksum", as compact JSON with sorted keys: the value of that key.
std::string training_state_checksum(const nlohmann::json& state);
// Throws CheckpointError for anything that save_checkpoint does not write in this way.
nlohmann::json parse_training_state(std::string_view text, const std::filesystem::path& path);

}  // namespace nanochat
