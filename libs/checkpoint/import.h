#pragma once
// Other people's models, turned into checkpoints of this program: Hugging Face NanoChat folders, and what the
// reference saves. What is read is in docs/formats/checkpoint.md, torch-checkpoint.md and tokenizer.md.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "model/config.h"
#include "tokenizer/load.h"

namespace nanochat {

struct ImportOptions {
  // A file or folder as load_tokenizer takes it. Empty: tokenizer.json, .model or .pkl beside the weights, else the
  // folder `tokenizer` two levels up, where the reference keeps its own; the model may have none.
  std::filesystem::path tokenizer;
  TokenizerLoadOptions tokenizer_options;
  // What the source's configuration does not say, by the names of GptConfig's fields (rope_table_dtype "float32" or
  // "bfloat16" for rope_table_bf16). Whatever both leave open is an error that names the flags.
  nlohmann::json given = nlohmann::json::object();
  // The version of the reference whose code says what its checkpoints do not: an MLP of four times the width, the base of
  // RoPE and the type of its tables, a soft-cap of 15, the eps of RMSNorm, the scale of queries and keys. "auto": d314e96, or
  // 92d63d4 where the file has a tensor smear_lambda. "none": they must be given.
  std::string reference = "auto";
  bool overwrite = false;  // replace the output folder when it is there
};

struct ImportResult {
  std::string format;             // "huggingface" or "reference"
  std::filesystem::path weights;  // the file that was read, or its index
  std::string dtype;              // of its weights, "BF16 and F32"
  GptConfig config;
  nlohmann::json assumed;              // names and values that the reference's code decided
  std::string reference;               // at which commit
  std::string tied;                    // what became of a head that is the embedding; empty where it is not
  std::optional<std::int64_t> step;    // where the file's name says it
  std::filesystem::path tokenizer_at;  // empty when there is none
  std::shared_ptr<const Tokenizer> tokenizer;
};

// `path`: a Hugging Face folder (model.safetensors, or several files and their index) or one of its files; or a
// folder with model_NNNNNN.pt, of which the highest step is taken, or such a file, with meta_NNNNNN.json beside it.
// A head that is the embedding becomes a table of its own. Writes a checkpoint in float32. Throws CheckpointError, TokenizerError, ConfigError or IoError; then nothing is
// left behind.
ImportResult import_checkpoint(const std::filesystem::path& path, const std::filesystem::path& output,
                               const ImportOptions& options);

// Refuses to replace what is there: an existing file, or a folder that is not empty. Throws ConfigError.
void require_absent(const std::filesystem::path& output, bool overwrite);

}  // namespace nanochat
