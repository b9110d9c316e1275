#pragma once
// Internal to import: shape and constants of a model, from its file and from the user. A value
// that both lack must be given: a guess would change everything that the model computes.

#include <filesystem>

#include <nlohmann/json.hpp>

#include "model/config.h"

namespace nanochat {

// `given`: values by the names of GptConfig's fields, and rope_table_dtype for rope_table_bf16; only values that `config`
// lacks may be given. Throws CheckpointError with the flags to give, and ConfigError for a value that contradicts the file.
GptConfig complete_hugging_face_config(nlohmann::json config, const nlohmann::json& given, const std::filesystem::path& where);

// `meta`: the reference's meta_*.json, or an empty object. The shape is from its model_config. Constants are
// from `given`, from the "architecture" that export writes, or from the reference's code at `reference`: "d314e96"
// or "92d63d4", or "none" to require them. `architecture`: that of the tensors. `assumed` receives the names of
// those from the code. Throws as above.
GptConfig reference_config(const nlohmann::json& meta, const nlohmann::json& given, const std::string& reference,
                           Architecture architecture, const std::filesystem::path& where, nlohmann::json& assumed);

// The commit of the reference whose code this program follows for an architecture.
std::string reference_commit(Architecture architecture);

// The "architecture" that export writes: all of `config` that the reference's model_config does not have.
nlohmann::ordered_json reference_architecture(const GptConfig& config);
// The reference's model_config.
nlohmann::ordered_json reference_model_config(const GptConfig& config);

// JSON as Python writes it: NaN and infinities, which are not valid JSON, become null.
nlohmann::json read_python_json(const std::filesystem::path& path);

}  // namespace nanochat
