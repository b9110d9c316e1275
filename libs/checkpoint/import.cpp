#include "checkpoint/import.h"

#include <charconv>
#include <string_view>
#include <system_error>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_files.h"
#include "checkpoint/internal/import_config.h"
#include "checkpoint/internal/model_tensors.h"
#include "checkpoint/internal/open_checkpoint.h"
#include "checkpoint/internal/tied_weights.h"
#include "checkpoint/json_file.h"
#include "checkpoint/torch_file.h"
#include "core/errors.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// 40 of "model_000040.pt".
std::optional<std::int64_t> step_of(const fs::path& path) {
  constexpr std::string_view kPrefix = "model_";
  const std::string name = path.stem().string();
  if (path.extension() != ".pt" || !name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* const end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (parsed.ec != std::errc() || parsed.ptr != end || step < 0) return std::nullopt;
  return step;
}

// The model of the highest step; nullopt when the folder has none.
std::optional<fs::path> newest_model(const fs::path& folder) {
  std::optional<fs::path> newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto step = step_of(entry.path());
    if (step && entry.is_regular_file() && (!newest || *step > *step_of(*newest))) newest = entry.path();
  }
  return newest;
}

struct Source {
  std::unique_ptr<TensorSource> weights;
  Naming naming = Naming::kHuggingFace;
};

// Whether head and embedding are one table. The configuration of the imported model, which has two, does not say so.
bool take_tied(json& object, const fs::path& config) {
  const auto found = object.find("tie_word_embeddings");
  if (found == object.end()) return false;
  if (!found->is_boolean() && !found->is_null()) {
    throw CheckpointError(config.string() + ": \"tie_word_embeddings\" is neither true nor false");
  }
  const bool tied = *found == true;
  object.erase(found);
  return tied;
}

Source open_hugging_face(const fs::path& path, const ImportOptions& options, ImportResult& result) {
  const fs::path found = find_checkpoint(path);
  fs::path weights = found;
  if (fs::is_directory(found)) weights /= is_file(found / kWeightsFile) ? kWeightsFile : kWeightsIndexFile;
  const fs::path config = weights.parent_path() / kConfigFile;
  result.format = "huggingface";
  json object = read_json_object(config);
  const bool tied = take_tied(object, config);
  result.config = complete_hugging_face_config(std::move(object), options.given, config);
  Source source{untie_weights(open_weights(weights), Naming::kHuggingFace, tied, result.tied), Naming::kHuggingFace};
  check_model_tensors(result.config, *source.weights, source.naming, kConfigFile);
  return source;
}

Source open_reference(const fs::path& path, const ImportOptions& options, ImportResult& result) {
  result.format = "reference";
  result.step = step_of(path);
  const std::string name = path.stem().string();
  const fs::path meta = path.parent_path() / ("meta" + (name.starts_with("model") ? name.substr(5) : "_" + name) + ".json");
  const bool has_meta = is_file(meta);
  auto weights = std::make_unique<TorchFile>(path);
  const auto architecture = weights->contains("smear_lambda") ? Architecture::kNanochat2026_07 : Architecture::kNanochat2025_12;
  result.reference = options.reference == "auto" ? reference_commit(architecture) : options.reference;
  result.config = reference_config(has_meta ? read_python_json(meta) : json::object(), options.given, result.reference,
                                   architecture, meta.string() + (has_meta ? "" : " (which is absent)"), result.assumed);
  Source source{untie_weights(std::move(weights), Naming::kReference, /*tied=*/false, result.tied), Naming::kReference};
  check_model_tensors(result.config, *source.weights, source.naming, meta.filename().string());
  return source;
}

void load_its_tokenizer(const fs::path& folder, const ImportOptions& options, ImportResult& result) {
  if (!options.tokenizer.empty()) {
    result.tokenizer_at = options.tokenizer;
  } else if (has_tokenizer(folder)) {
    result.tokenizer_at = folder;
  } else if (const fs::path kept = folder / ".." / ".." / "tokenizer"; result.format == "reference" && has_tokenizer(kept)) {
    result.tokenizer_at = kept.lexically_normal();
  } else {
    return;
  }
  result.tokenizer = load_tokenizer(result.tokenizer_at, options.tokenizer_options);
  const std::int64_t tokens = result.tokenizer->vocab_size(), vocabulary = result.config.vocab_size;
  // The reference asks for equal sizes; a Hugging Face table may have rows that are no tokens.
  if (tokens == vocabulary || (tokens < vocabulary && result.format == "huggingface")) return;
  throw CheckpointError(result.tokenizer_at.string() + ": this tokenizer has " + std::to_string(tokens) +
                        " tokens, but the model " + std::to_string(vocabulary) + "; they do not belong together");
}

}  // namespace

void require_absent(const fs::path& output, bool overwrite) {
  std::error_code error;
  if (overwrite || !fs::exists(output, error) || (fs::is_directory(output, error) && fs::is_empty(output, error))) return;
  throw ConfigError(output.string() + ": is there already; name another place, or give --overwrite to replace it");
}

ImportResult import_checkpoint(const fs::path& path, const fs::path& output, const ImportOptions& options) {
  require_absent(output, options.overwrite);
  ImportResult result;
  fs::path model = path;
  std::error_code ignored;
  if (fs::is_directory(path, ignored) && !is_file(path / kWeightsFile) && !is_file(path / kWeightsIndexFile) &&
      !fs::is_directory(path / "checkpoints", ignored)) {
    const auto newest = newest_model(path);
    if (!newest) {
      throw CheckpointError(path.string() +
                            ": holds neither model.safetensors or its index (a Hugging Face folder) nor "
                            "model_NNNNNN.pt (the reference)");
    }
    model = *newest;
  }
  if (!fs::exists(model, ignored)) throw CheckpointError(path.string() + ": no such file or folder");
  const Source source = model.extension() == ".pt" ? open_reference(model, options, result)
                                                   : open_hugging_face(model, options, result);
  result.weights = source.weights->path();
  result.dtype = source.weights->dtype_text();
  load_its_tokenizer(result.weights.parent_path(), options, result);

  CheckpointContents contents;
  contents.config = &result.config;
  contents.weights = read_model_tensors(result.config, *source.weights, source.naming, at::kFloat);
  contents.tokenizer = result.tokenizer.get();
  contents.training_state = {{"imported", {{"format", result.format}, {"file", result.weights.filename().string()}}}};
  if (result.step) contents.training_state["step"] = *result.step;
  save_checkpoint(output, contents);
  return result;
}

}  // namespace nanochat
