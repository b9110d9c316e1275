#include "checkpoint/export.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <system_error>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/import.h"
#include "checkpoint/internal/hugging_face_files.h"
#include "checkpoint/internal/import_config.h"
#include "checkpoint/internal/model_tensors.h"
#include "checkpoint/internal/open_checkpoint.h"
#include "checkpoint/internal/sharded_safetensors.h"
#include "checkpoint/json_file.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/torch_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/load.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tiktoken_file.h"
#include "tokenizer/tokenizer_pickle.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw IoError(folder.string() + ": cannot create: " + error.message());
}

// What the reference cannot be told, since its code fixes it.
void require_reference_constants(const GptConfig& config, const fs::path& folder) {
  const auto fail = [&](const char* name, auto found, auto expected) {
    throw CheckpointError(fmt::format("{}: {} is {}, but the reference computes with {} only", folder.string(), name, found,
                                      expected));
  };
  if (config.intermediate_size != 4 * config.n_embd) {
    fail("intermediate_size", config.intermediate_size, 4 * config.n_embd);
  }
  const double base = config.is_2026() ? 100000.0 : 10000.0;
  if (config.rope_base != base) fail("rope_base", config.rope_base, base);
  if (config.is_2026() && config.qk_scale != 1.2) fail("qk_scale", config.qk_scale, 1.2);
  if (config.softcap != 15.0) fail("softcap", config.softcap, 15.0);
}

std::int64_t step_of(const OpenCheckpoint& checkpoint, const ExportOptions& options) {
  if (options.step) return *options.step;
  if (!checkpoint.training_state.is_object()) return 0;
  const auto step = checkpoint.training_state.find("step");
  const bool known = step != checkpoint.training_state.end() && step->is_number_unsigned();
  return known && *step <= 999'999'999'999 ? step->get<std::int64_t>() : 0;
}

std::vector<std::string> chat_tokens() { return {kChatSpecialTokens.begin(), kChatSpecialTokens.end()}; }

}  // namespace

ExportResult export_hugging_face(const fs::path& checkpoint, const fs::path& output, const ExportOptions& options) {
  TORCH_CHECK(options.dtype == at::kFloat || options.dtype == at::kBFloat16, "export: float32 or bfloat16");
  require_absent(output, options.overwrite);
  const OpenCheckpoint opened = open_checkpoint(checkpoint);
  if (opened.config.is_2026()) {
    throw CheckpointError(opened.folder.string() + ": transformers has no class for " +
                          architecture_name(opened.config.architecture) + "; use --format reference");
  }
  verify_weights(opened);
  const auto tokenizer = checkpoint_tokenizer(opened);
  const NamedTensors tensors = read_model_tensors(opened.config, *opened.weights, Naming::kHuggingFace, options.dtype);
  ExportResult result;
  if (opened.config.rope_table_bf16) {
    result.notes.emplace_back(
        "transformers computes rotary tables in float32, this model in bfloat16: logits will differ "
        "slightly");
  }
  make_folder(fs::absolute(output).parent_path());
  AtomicDirectory folder(output);
  write_weights(folder.path(), tensors, options.max_shard_bytes);
  write_hugging_face_files(folder.path(), opened.config, tokenizer.get(), options.dtype == at::kFloat ? "float32" : "bfloat16");
  for (const auto& entry : fs::directory_iterator(folder.path())) result.files.push_back(output / entry.path().filename());
  std::sort(result.files.begin(), result.files.end());
  folder.commit();
  return result;
}

ExportResult export_reference(const fs::path& checkpoint, const fs::path& output, const ExportOptions& options) {
  TORCH_CHECK(options.dtype == at::kFloat || options.dtype == at::kBFloat16, "export: float32 or bfloat16");
  const OpenCheckpoint opened = open_checkpoint(checkpoint);
  require_reference_constants(opened.config, opened.folder);
  const std::int64_t step = step_of(opened, options);
  const fs::path model = output / fmt::format("model_{:06d}.pt", step);
  const fs::path meta = output / fmt::format("meta_{:06d}.json", step);
  for (const fs::path& file : {model, meta}) require_absent(file, options.overwrite);
  verify_weights(opened);

  ExportResult result;
  if (!opened.config.rope_table_bf16 && !opened.config.is_2026()) {
    result.notes.emplace_back(
        "the reference rounds rotary tables to bfloat16, this model does not: logits will differ "
        "slightly");
  }
  const auto tokenizer = checkpoint_tokenizer(opened);
  const auto* bpe = dynamic_cast<const ByteBpeTokenizer*>(tokenizer.get());
  const std::string pickle = bpe != nullptr ? to_tokenizer_pickle(*bpe) : "";
  if (tokenizer != nullptr && tokenizer->vocab_size() != opened.config.vocab_size) {
    result.notes.push_back(fmt::format("the tokenizer has {} tokens, the model {}: the reference asks for equal numbers",
                                       tokenizer->vocab_size(), opened.config.vocab_size));
  }
  NamedTensors tensors;
  for_each_tensor(opened.config, [&](const TensorSpec& tensor) {
    // The reference keeps tables in the compute type and the rest in float32.
    at::Tensor values = at::empty(tensor.shape, tensor.role == TensorRole::kTable ? options.dtype : at::kFloat);
    read_model_tensor(tensor, *opened.weights, Naming::kHuggingFace, values);
    tensors.emplace_back(tensor.reference_name(), values);
  });
  make_folder(output);
  write_torch_file(model, tensors);
  const nlohmann::ordered_json object = {{"step", step},
                                         {"model_config", reference_model_config(opened.config)},
                                         {"architecture", reference_architecture(opened.config)}};
  write_file_atomically(meta, to_json_text(object));
  result.files = {model, meta};
  if (bpe != nullptr) {
    result.files.push_back(output / "tokenizer.pkl");
    write_file_atomically(result.files.back(), pickle);
  } else if (tokenizer != nullptr) {
    tokenizer->save(output);
    result.notes.emplace_back(
        "the reference has no sentencepiece tokenizers: tokenizer.json and tokenizer.model are for "
        "importing this model again");
  }
  return result;
}

ExportResult export_tiktoken(const fs::path& given, const fs::path& output, const ExportOptions& options) {
  const fs::path checkpoint = locate_run(given);
  require_absent(output, options.overwrite);
  std::error_code error;
  const bool is_run = fs::is_directory(checkpoint, error) && fs::is_directory(checkpoint / "checkpoints", error);
  const auto tokenizer = load_tokenizer(is_run ? find_checkpoint(checkpoint) : checkpoint);
  const auto* bpe = dynamic_cast<const ByteBpeTokenizer*>(tokenizer.get());
  if (bpe == nullptr) {
    throw TokenizerError(checkpoint.string() + ": is a sentencepiece tokenizer; rank files hold byte-level BPE only");
  }
  const std::string ranks = to_tiktoken_ranks(*bpe);
  ExportResult result;
  if (const std::string_view published = published_pattern(ranks), pattern = bpe->pattern();
      pattern != (published.empty() ? kNanochatPattern : published)) {
    result.notes.push_back(fmt::format("a rank file does not say its split pattern; load this one with --pattern '{}'",
                                       pattern_name(pattern) == "custom" ? pattern : pattern_name(pattern)));
  }
  if (!bpe->special_tokens().empty() && bpe->special_tokens() != chat_tokens()) {
    result.notes.emplace_back("a rank file does not say its special tokens; this tokenizer has others than nanochat's nine");
  }
  make_folder(fs::absolute(output).parent_path());
  write_file_atomically(output, ranks);
  result.files = {output};
  return result;
}

}  // namespace nanochat
