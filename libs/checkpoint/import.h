#pragma once
// Converts models of other programs to checkpoints of this program: Hugging Face NanoChat folders and files
// of the reference. docs/formats/checkpoint.md, torch-checkpoint.md and tokenizer.md describe what is read.

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
  // A file or folder as load_tokenizer takes it. Empty: tokenizer.json, .model or .pkl beside the weights,
  // otherwise the folder `tokenizer` two levels up, where the reference stores its own; the model may have none.
  std::filesystem::path tokenizer;
  TokenizerLoadOptions tokenizer_options;
  // Values that the source's configuration does not have, by the names of GptConfig's fields (rope_table_dtype
  // "float32" or "bfloat16" for rope_table_bf16). A value missing in both is an error that names the flags.
  nlohmann::json given = nlohmann::json::object();
  // The version of the reference whose code defines what its checkpoints do not store: an MLP of four times the
  // width, the base of RoPE and the type of its tables, soft-cap 15, the eps of RMSNorm, the scale of queries and
  // keys. "auto": 92d63d4 if the file has a tensor smear_lambda, otherwise d314e96. "none": the values must be given.
  std::string reference = "auto";
  bool overwrite = false;  // replace the output folder if it exists
};

struct ImportResult {
  std::string format;             // "huggingface" or "reference"
  std::filesystem::path weights;  // the file that was read, or its index
  std::string dtype;              // of its weights, "BF16 and F32"
  GptConfig config;
  nlohmann::json assumed;              // names and values from the reference's code
  std::string reference;               // the commit of that code
  std::string tied;                    // describes a head tied to the embedding; empty if it is not
  std::optional<std::int64_t> step;    // from the file name, if it has one
  std::filesystem::path tokenizer_at;  // empty if there is none
  std::shared_ptr<const Tokenizer> tokenizer;
};

// `path`: a Hugging Face folder (model.safetensors, or several files and their index) or one of its
// files; or a folder with model_NNNNNN.pt (the highest step is read) or such a file, with
// meta_NNNNNN.json in the same folder. A tied head becomes a separate table. Writes a checkpoint in
// float32. Throws CheckpointError, TokenizerError, ConfigError or IoError and then leaves nothing behind.
ImportResult import_checkpoint(const std::filesystem::path& path, const std::filesystem::path& output,
                               const ImportOptions& options);

// Refuses to replace an existing file or a folder that is not empty. Throws ConfigError.
void require_absent(const std::filesystem::path& output, bool overwrite);

}  // namespace nanochat
