#include <iostream>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/run_folder.h"
#include "command_line.h"
#include "commands.h"
#include "core/atomic_file.h"
#include "evaluation/report/report.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;

struct ReportConfig {
  std::vector<std::string> runs;
  fs::path output_dir;
  ReportOptions options;
};

ExitCode report(const ReportConfig& config, const Context& context) {
  std::vector<RunRecord> runs;
  for (const std::string& run : config.runs) runs.push_back(read_run(run));
  const fs::path folder = config.output_dir.empty() ? locate_run(config.runs.front()) : config.output_dir;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw IoError(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
  const fs::path html = folder / "report.html", markdown = folder / "report.md";
  write_file_atomically(html, report_html(runs, config.options));
  write_file_atomically(markdown, report_markdown(runs, config.options));
  if (context.json) {
    std::cout << nlohmann::json{{"html", html.string()}, {"markdown", markdown.string()}}.dump() << '\n';
  } else {
    std::cout << html.string() << '\n' << markdown.string() << '\n';
  }
  return ExitCode::kOk;
}

}  // namespace

void add_report(CommandLine& command_line) {
  auto config = std::make_shared<ReportConfig>();
  Subcommand& command = command_line.add(
      "report", "Write a report of one or several runs: curves, evaluations, samples and configuration.",
      "nanochat report runs/base runs/mid runs/sft --output-dir reports");
  command.option("runs", config->runs, "Run folders, in the order of their stages, or in the order to compare them.");
  command.positional("runs", /*required=*/true);
  command.option("output_dir", config->output_dir,
                 "Folder for report.html and report.md; default: the folder of the first run.");
  command.option("hourly_rate", config->options.hourly_rate, "Price of the machine in dollars per hour, to estimate the cost.")
      .at_least(0);
  command.run([config](Context& context) { return report(*config, context); });
}

}  // namespace nanochat::cli
