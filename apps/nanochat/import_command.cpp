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

constexpr const char* kConfigOptions[] = {"sequence_len",     "vocab_size", "n_layer",           "n_head",
                                          "n_kv_head",        "n_embd",     "intermediate_size", "rope_base",
                                          "rope_table_dtype", "softcap",    "rms_norm_eps",      "window_pattern",
                                          "qk_scale"};

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
    fmt::print("tokenizer: {}, {} tokens, from {}\n", result.tokenizer->type(),
               with_commas(result.tokenizer->vocab_size()), result.tokenizer_at.string());
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
    log_info("taken from the reference's code at {}, since its files do not say it: {}", result.reference,
             values);
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
    command.option(name, field, fmt::format("{}; only where the model's files do not say it", help)).at_least(1);
  };
  size("sequence_len", config.sequence_len, "longest row in training");
  size("vocab_size", config.vocab_size, "tokens, special ones included, padding not");
  size("n_layer", config.n_layer, "layers");
  size("n_head", config.n_head, "query heads");
  size("n_kv_head", config.n_kv_head, "key and value heads");
  size("n_embd", config.n_embd, "width");
  size("intermediate_size", config.intermediate_size, "size of the MLP");
  command.option("window_pattern", config.window_pattern, "letters S and L, of models with sliding windows; likewise");
  command.option("qk_scale", config.qk_scale, "factor of queries and keys, of the same models; likewise").above(0, 0);
  command.option("rope_base", config.rope_base, "base of the rotary frequencies; likewise").above(1, 0);
  command.option("rope_table_dtype", arguments.rope_table_dtype, "precision of the rotary table; likewise")
      .one_of({"", "float32", "bfloat16"});
  command.option("softcap", config.softcap, "soft-cap of the logits, 0 for none; likewise").at_least(0);
  command.option("rms_norm_eps", config.rms_norm_eps, "added to the mean square in every RMSNorm; likewise")
      .at_least(0);
}

}  // namespace

void add_import(CommandLine& command_line) {
  auto arguments = std::make_shared<ImportArguments>();
  ImportOptions& options = arguments->options;
  Subcommand& command = command_line.add(
      "import",
      "Turn a Hugging Face NanoChat folder, or a checkpoint of the Python nanochat, into one of this program",
      "nanochat import ~/.cache/nanochat/chatsft_checkpoints/d20 --output-dir models/d20");
  command.option("path", arguments->path,
                 "a folder with model.safetensors (or several files and their index) and config.json; or with "
                 "model_NNNNNN.pt and meta_NNNNNN.json, the highest step or the .pt that is named");
  command.option("output_dir", arguments->output_dir, "folder for the checkpoint");
  command.option(
      "tokenizer", options.tokenizer,
      "tokenizer.json, tokenizer.model, tokenizer.pkl, a .tiktoken rank file, or a folder with one; empty: "
      "beside the weights, or where the Python nanochat keeps it");
  command.option("pattern", options.tokenizer_options.pattern,
                 "split pattern of a rank file: nanochat, gpt2, cl100k or a regular expression");
  command
      .option("special", options.tokenizer_options.special, "special tokens added to a rank file: nanochat or none")
      .one_of({"", "nanochat", "none"});
  command
      .option("reference", options.reference,
              "version of the Python nanochat whose code fixes what a .pt does not say (an MLP of 4 times the width, the base "
              "of RoPE, soft-cap 15 and others); auto: 92d63d4 where the file has smear_lambda, else d314e96; none: give each")
      .one_of({"auto", "d314e96", "92d63d4", "none"});
  add_config_options(command, *arguments);
  command.option("overwrite", options.overwrite, "replace the output folder when it is there");
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
