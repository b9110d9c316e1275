#pragma once
// Writes checkpoints of this program in formats of other programs. import_checkpoint
// restores the same model, within the precision of the element type.

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace nanochat {

struct ExportOptions {
  at::ScalarType dtype = at::kFloat;  // or at::kBFloat16
  std::int64_t max_shard_bytes = 0;   // for a Hugging Face folder; 0: one file
  std::optional<std::int64_t> step;   // for the reference's files; unset: the checkpoint's step, otherwise 0
  bool overwrite = false;             // replace existing files
};

struct ExportResult {
  std::vector<std::filesystem::path> files;  // what was written
  std::vector<std::string> notes;            // differences in the other program's behaviour
};

// `checkpoint`: as find_checkpoint. All throw CheckpointError for a checkpoint that is damaged or does not
// fit the format, ConfigError if `output` exists, and IoError. After an error, only complete files are left.

// A folder for transformers' NanoChatForCausalLM and AutoTokenizer. Refuses nanochat-2026-07, which no class there computes.
ExportResult export_hugging_face(const std::filesystem::path& checkpoint, const std::filesystem::path& output,
                                 const ExportOptions& options = {});

// A folder with model_NNNNNN.pt and meta_NNNNNN.json that the reference loads, at d314e96 or 92d63d4
// depending on the model's architecture, and its tokenizer: tokenizer.pkl for byte-level BPE, otherwise
// tokenizer.json and tokenizer.model, for import only. With bfloat16, only the embeddings have this type, as in
// the reference on a GPU; the rest is float32. Refuses a model with other constants than those in the reference's code.
ExportResult export_reference(const std::filesystem::path& checkpoint, const std::filesystem::path& output,
                              const ExportOptions& options = {});

// A rank file. `checkpoint` may also be a tokenizer, as file or
// folder. Throws TokenizerError if it is not byte-level BPE.
ExportResult export_tiktoken(const std::filesystem::path& checkpoint, const std::filesystem::path& output,
                             const ExportOptions& options = {});

}  // namespace nanochat
