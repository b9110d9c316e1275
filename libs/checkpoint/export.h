#pragma once
// Checkpoints of this program, in the forms of others. Each comes back the same through import_checkpoint, as far as
// its element type keeps it.

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace nanochat {

struct ExportOptions {
  at::ScalarType dtype = at::kFloat;  // or at::kBFloat16
  std::int64_t max_shard_bytes = 0;   // of a Hugging Face folder; 0: one file
  std::optional<std::int64_t> step;   // of the reference's files; unset: the checkpoint's own, else 0
  bool overwrite = false;             // replace what is there
};

struct ExportResult {
  std::vector<std::filesystem::path> files;  // what was written
  std::vector<std::string> notes;            // what the other program will do otherwise
};

// `checkpoint` as find_checkpoint takes it. All throw CheckpointError for one that is damaged or that the form cannot
// hold, ConfigError when `output` is there already, IoError; then nothing is left behind but whole files.

// A folder for transformers' NanoChatForCausalLM and AutoTokenizer. Refuses nanochat-2026-07, which no class there computes.
ExportResult export_hugging_face(const std::filesystem::path& checkpoint, const std::filesystem::path& output,
                                 const ExportOptions& options = {});

// A folder with model_NNNNNN.pt and meta_NNNNNN.json as the reference loads them, at d314e96 or 92d63d4 by the model's architecture, and its tokenizer:
// tokenizer.pkl for byte-level BPE, otherwise tokenizer.json and tokenizer.model, for import only. With bfloat16 the
// embeddings are stored in it, as the reference does on a GPU, the rest in float32. Refuses a model of other constants
// than the reference's code has.
ExportResult export_reference(const std::filesystem::path& checkpoint, const std::filesystem::path& output,
                              const ExportOptions& options = {});

// A rank file. `checkpoint` may also be a tokenizer, file or folder. Throws TokenizerError for one that is no
// byte-level BPE.
ExportResult export_tiktoken(const std::filesystem::path& checkpoint, const std::filesystem::path& output,
                             const ExportOptions& options = {});

}  // namespace nanochat
