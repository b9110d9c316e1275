// nanochat export CHECKPOINT --output PATH --format FORM
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/export.h"
#include "command_line.h"
#include "commands.h"
#include "core/format.h"
#include "core/log.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;

struct ExportArguments {
  fs::path model, output;
  std::string format = "huggingface", dtype = "float32", max_shard_size;
  std::int64_t step = -1;
  ExportOptions options;
};

ExportResult run(const ExportArguments& arguments) {
  ExportOptions options = arguments.options;
  options.dtype = arguments.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  if (arguments.step >= 0) options.step = arguments.step;
  if (!arguments.max_shard_size.empty()) options.max_shard_bytes = parse_bytes(arguments.max_shard_size).value();
  if (arguments.format == "tiktoken") return export_tiktoken(arguments.model, arguments.output, options);
  if (arguments.format == "reference") return export_reference(arguments.model, arguments.output, options);
  return export_hugging_face(arguments.model, arguments.output, options);
}

ExitCode export_model(const ExportArguments& arguments, const Context& context) {
  const ExportResult result = run(arguments);
  for (const std::string& note : result.notes) log_warn("{}", note);
  std::uintmax_t bytes = 0;
  nlohmann::json files = nlohmann::json::array();
  for (const fs::path& file : result.files) {
    files.push_back(file.string());
    bytes += fs::file_size(file);
  }
  if (context.json) {
    const nlohmann::ordered_json report = {{"format", arguments.format},
                                           {"output", arguments.output.string()},
                                           {"files", files},
                                           {"bytes", bytes},
                                           {"notes", result.notes}};
    fmt::print("{}\n", report.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  } else if (!context.quiet) {
    fmt::print("{}: {} files, {}\n", arguments.output.string(), result.files.size(), human_bytes(static_cast<double>(bytes)));
  }
  return ExitCode::kOk;
}

}  // namespace

void add_export(CommandLine& command_line) {
  auto arguments = std::make_shared<ExportArguments>();
  Subcommand& command = command_line.add(
      "export", "Convert a model for transformers, tiktoken or the Python nanochat.",
      "nanochat export runs/quickstart --format huggingface --dtype bfloat16 --output quickstart-hf/");
  command.option("model", arguments->model, "A checkpoint, or a run (its latest checkpoint).");
  command.option("output", arguments->output, "Folder to write; for tiktoken, file to write.");
  command
      .option("format", arguments->format,
              "huggingface: a folder for transformers. reference: model_NNNNNN.pt, meta_NNNNNN.json and "
              "tokenizer.pkl for the Python nanochat. tiktoken: the tokenizer's rank file.")
      .one_of({"huggingface", "reference", "tiktoken"});
  command
      .option("dtype", arguments->dtype,
              "Type of the weights. With --format reference, bfloat16 applies to the embedding only, as in files "
              "that the Python nanochat saves on a GPU.")
      .one_of({"float32", "bfloat16"});
  command
      .option("max_shard_size", arguments->max_shard_size,
              "With --format huggingface: split the weights into files of at most this size, such as 5GB; empty "
              "writes one file.")
      .check([](const nlohmann::json& value) {
        const auto& text = value.get_ref<const std::string&>();
        return text.empty() || parse_bytes(text) ? std::string() : std::string("a size such as 500MB or 5GiB");
      });
  command
      .option("step", arguments->step, "With --format reference: step number in the file names; -1 uses the checkpoint's step.")
      .at_least(-1)
      .at_most(999'999'999'999.0);
  command.option("overwrite", arguments->options.overwrite, "Replace existing output files.");
  command.positional("model", /*required=*/true).required("output");
  command.run([arguments](Context& context) { return export_model(*arguments, context); });
}

}  // namespace nanochat::cli
