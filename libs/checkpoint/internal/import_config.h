#pragma once
// Internal to import: the shape and constants of a model, put together from what its file says and what the user
// adds. A value that both leave open is asked for: a guess would change every number that the model computes.

#include <filesystem>

#include <nlohmann/json.hpp>

#include "model/config.h"

namespace nanochat {

// `given`: values by the names of GptConfig's fields, rope_table_dtype for rope_table_bf16; only what `config` lacks
// may be given. Throws CheckpointError naming the flags to give, ConfigError for a value that contradicts the file.
GptConfig complete_hugging_face_config(nlohmann::json config, const nlohmann::json& given,
                                       const std::filesystem::path& where);

// `meta`: the reference's meta_*.json, or an empty object. Shape from its model_config; constants from `given`, from
// the "architecture" that export writes, or from the reference's code at `reference`: "d314e96", or "none" to be
// asked for them. `assumed` receives the names of those that the code decided. Throws as above.
GptConfig reference_config(const nlohmann::json& meta, const nlohmann::json& given, const std::string& reference,
                           const std::filesystem::path& where, nlohmann::json& assumed);

// What export writes as "architecture": all of `config` that the reference's model_config cannot say.
nlohmann::ordered_json reference_architecture(const GptConfig& config);
// The reference's model_config.
nlohmann::ordered_json reference_model_config(const GptConfig& config);

// JSON as Python writes it: NaN and infinities, which JSON lacks, become null.
nlohmann::json read_python_json(const std::filesystem::path& path);

}  // namespace nanochat
