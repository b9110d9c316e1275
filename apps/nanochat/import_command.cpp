// nanochat import PATH --output-dir FOLDER
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/import.h"
#include "checkpoint/model_config.h"
#include "command_line.h"
#include "commands.h"
#include "core/format.h"
#include "core/log.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct ImportArguments {
  fs::path path, output_dir;
  ImportOptions options;
  GptConfig config;  // only what was given is taken from it
  std::string rope_table_dtype;
};

constexpr const char* kConfigOptions[] = {"sequence_len", "vocab_size",        "n_layer",   "n_head",           "n_kv_head",
                                          "n_embd",       "intermediate_size", "rope_base", "rope_table_dtype", "softcap",
                                          "rms_norm_eps", "window_pattern",    "qk_scale"};

void report(const ImportArguments& arguments, const ImportResult& result, const Context& context) {
  const GptConfig& config = result.config;
  if (context.json) {
    ordered_json object = {{"output_dir", arguments.output_dir.string()},
                           {"format", result.format},
                           {"weights", result.weights.string()},
                           {"weights_dtype", result.dtype},
                           {"parameters", config.parameter_count()},
                           {"config", to_hugging_face_config(config)},
                           {"assumed", result.assumed},
                           {"tied", result.tied.empty() ? ordered_json() : ordered_json(result.tied)},
                           {"step", nullptr},
                           {"tokenizer", nullptr}};
    if (result.step) object["step"] = *result.step;
    if (result.tokenizer != nullptr) {
      object["tokenizer"] = {{"path", result.tokenizer_at.string()},
                             {"type", result.tokenizer->type()},
                             {"vocab_size", result.tokenizer->vocab_size()},
                             {"fingerprint", result.tokenizer->fingerprint()}};
    }
    fmt::print("{}\n", object.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
    return;
  }
  if (context.quiet) return;
  fmt::print("{}: {} parameters in {} layers, from {} ({})\n", arguments.output_dir.string(),
             with_commas(config.parameter_count()), config.n_layer, result.weights.string(), result.dtype);
  if (result.tokenizer != nullptr) {
    fmt::print("tokenizer: {}, {} tokens, from {}\n", result.tokenizer->type(), with_commas(result.tokenizer->vocab_size()),
               result.tokenizer_at.string());
  }
}

ExitCode import(const ImportArguments& arguments, const Context& context) {
  const ImportResult result = import_checkpoint(arguments.path, arguments.output_dir, arguments.options);
  if (!result.assumed.empty()) {
    std::string values;
    for (const auto& [name, value] : result.assumed.items()) {
      values += fmt::format("{}{} {}", values.empty() ? "" : ", ", name,
                            value.is_string() ? value.get<std::string>() : value.dump());
    }
    log_info("taken from the reference's code at {}, since its files do not say it: {}", result.reference, values);
  }
  if (!result.tied.empty()) log_info("tied embeddings: {}", result.tied);
  if (result.tokenizer == nullptr) {
    log_warn("no tokenizer was found beside the weights; without --tokenizer the model only takes token ids");
  }
  report(arguments, result, context);
  return ExitCode::kOk;
}

void add_config_options(Subcommand& command, ImportArguments& arguments) {
  GptConfig& config = arguments.config;
  config = {.sequence_len = 0,
            .vocab_size = 0,
            .n_layer = 0,
            .n_head = 0,
            .n_kv_head = 0,
            .n_embd = 0,
            .intermediate_size = 0,
            .rope_base = 0,
            .softcap = 0,
            .rms_norm_eps = 0,
            .window_pattern = "",
            .qk_scale = 0};
  const auto size = [&](const char* name, std::int64_t& field, const char* help) {
    command.option(name, field, fmt::format("{}. Use only if the model's files do not say it.", help)).at_least(1);
  };
  size("sequence_len", config.sequence_len, "Context length");
  size("vocab_size", config.vocab_size, "Number of tokens, including special tokens but not padding");
  size("n_layer", config.n_layer, "Number of layers");
  size("n_head", config.n_head, "Number of query heads");
  size("n_kv_head", config.n_kv_head, "Number of key/value heads");
  size("n_embd", config.n_embd, "Width of the model");
  size("intermediate_size", config.intermediate_size, "Hidden size of the MLP");
  command.option("window_pattern", config.window_pattern,
                 "For models of nanochat-2026-07: attention window of each layer, as a pattern of letters that is repeated "
                 "over the layers. S (short) is a quarter of the context, L (long) is the whole context. Use only if the "
                 "model's files do not say it.");
  command
      .option("qk_scale", config.qk_scale,
              "For models of nanochat-2026-07: factor that multiplies queries and keys after QK-norm. Use only if the model's "
              "files do not say it.")
      .above(0, 0);
  command.option("rope_base", config.rope_base, "Base of the RoPE frequencies. Use only if the model's files do not say it.")
      .above(1, 0);
  command
      .option("rope_table_dtype", arguments.rope_table_dtype,
              "Precision of the RoPE table. Use only if the model's files do not say it.")
      .one_of({"", "float32", "bfloat16"});
  command
      .option("softcap", config.softcap, "Soft cap of the logits; 0 means none. Use only if the model's files do not say it.")
      .at_least(0);
  command
      .option("rms_norm_eps", config.rms_norm_eps,
              "Epsilon that every RMSNorm adds to the mean square. Use only if the model's files do not say it.")
      .at_least(0);
}

}  // namespace

void add_import(CommandLine& command_line) {
  auto arguments = std::make_shared<ImportArguments>();
  ImportOptions& options = arguments->options;
  Subcommand& command = command_line.add("import",
                                         "Convert a Hugging Face NanoChat folder or a checkpoint of the Python nanochat.",
                                         "nanochat import ~/.cache/nanochat/chatsft_checkpoints/d20 --output-dir models/d20");
  command.option("path", arguments->path,
                 "Folder with config.json and model.safetensors (or several .safetensors files with an index), or "
                 "with model_NNNNNN.pt and meta_NNNNNN.json. Of several .pt files the one with the highest step is "
                 "read; name a file to choose another.");
  command.option("output_dir", arguments->output_dir, "Folder for the converted checkpoint.");
  command.option("tokenizer", options.tokenizer,
                 "tokenizer.json, tokenizer.model, tokenizer.pkl, a .tiktoken rank file, or a folder with one of them. Empty "
                 "looks beside the weights and where the Python nanochat stores its tokenizer.");
  command.option("pattern", options.tokenizer_options.pattern,
                 "Split pattern of a .tiktoken rank file: nanochat, gpt2, cl100k or a regular expression.");
  command
      .option("special", options.tokenizer_options.special,
              "Special tokens to add to a .tiktoken rank file, because it does not list them. nanochat: the nine tokens of the "
              "chat format, such as <|bos|> and <|user_start|>. none: no token.")
      .one_of({"", "nanochat", "none"});
  command
      .option("reference", options.reference,
              "Commit of the Python nanochat that wrote the .pt file: d314e96 (December 2025) or 92d63d4 (July 2026). Its code "
              "defines what the file does not store, such as the MLP size, the base and precision of RoPE, and the soft cap. "
              "auto detects it from the tensors in the file. none: give these values as options.")
      .one_of({"auto", "d314e96", "92d63d4", "none"});
  add_config_options(command, *arguments);
  command.option("overwrite", options.overwrite, "Replace the output folder if it exists.");
  command.positional("path", /*required=*/true).required("output_dir");
  command.run([arguments, &command](Context& context) {
    for (const char* name : kConfigOptions) {
      const Option* option = command.options().find(name);
      if (option->source() != "default") arguments->options.given[name] = option->value();
    }
    return import(*arguments, context);
  });
}

}  // namespace nanochat::cli
