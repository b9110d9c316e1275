// nanochat data validate: faults in text, conversations and token shards, all of them, before a run meets the first.
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/errors.h"
#include "core/format.h"
#include "data/checks/validate.h"
#include "data/conversations/conversations.h"
#include "reader_options.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::cli {
namespace {

struct ValidateArguments {
  std::vector<std::string> data_dir;
  std::filesystem::path tokenizer;
  ValidateOptions options;
};

ExitCode validate(const ValidateArguments& arguments, Context& context) {
  ValidateOptions options = arguments.options;
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!arguments.tokenizer.empty()) tokenizer = load_tokenizer(arguments.tokenizer);
  options.tokenizer = tokenizer.get();
  const ValidationReport report = validate_data(arguments.data_dir, options, *context.progress);
  const ExitCode code = report.clean() ? ExitCode::kOk : ExitCode::kData;
  if (context.json) {
    fmt::print("{}\n", report.to_json().dump());
    return code;
  }
  fmt::print("{} files, {} documents, {} of them conversations, {}{}\n", with_commas(static_cast<std::int64_t>(report.files)),
             with_commas(static_cast<std::int64_t>(report.documents)),
             with_commas(static_cast<std::int64_t>(report.conversations)), human_bytes(static_cast<double>(report.bytes)),
             report.tokens > 0 ? fmt::format(", {} tokens", with_commas(static_cast<std::int64_t>(report.tokens))) : "");
  if (!report.unread.empty())
    fmt::print("keys of conversations that are not read: {}\n", replace_invalid_utf8(describe(report.unread)));
  if (report.clean()) {
    fmt::print("no faults found\n");
    return code;
  }
  for (const auto& [kind, meaning] : finding_kinds()) {
    const auto count = report.counts.find(kind);
    if (count == report.counts.end()) continue;
    fmt::print("\n{} x {}: {}\n", with_commas(static_cast<std::int64_t>(count->second)), kind, meaning);
    for (const Finding& finding : report.examples) {
      if (finding.kind != kind) continue;
      fmt::print("  {}: {}\n", replace_invalid_utf8(finding.where), replace_invalid_utf8(finding.what));
    }
  }
  return code;
}

}  // namespace

void add_data_validate(CommandLine& command_line) {
  auto arguments = std::make_shared<ValidateArguments>();
  ValidateOptions& options = arguments->options;
  Subcommand& command = command_line.add(
      "data validate",
      "Check text, conversations and token shards, and report every problem. The exit code is 3 when there are any.",
      "nanochat data validate shards/ conversations.jsonl");
  command.option("data_dir", &arguments->data_dir,
                 "What to check: files, folders or globs of .txt, .jsonl and .json (each also .gz or .zst), "
                 ".parquet, or folders of token shards; - reads standard input.");
  command.option("tokenizer", &arguments->tokenizer,
                 "Report token shards that were made with another tokenizer than this one.");
  add_text_column(command, options.text_column);
  command.option("max_document_bytes", &options.max_document_bytes, "Report documents longer than this many bytes.")
      .at_least(1);
  command.option("max_examples", &options.max_examples, "Number of examples to show for each kind of problem.").at_least(0);
  command.positional("data_dir").required("data_dir");
  command.run([arguments](Context& context) { return validate(*arguments, context); });
}

}  // namespace nanochat::cli
