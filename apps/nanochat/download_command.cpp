// nanochat data download
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "download/dataset_table.h"
#include "download/download.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using State = FileReport::State;

struct DownloadArguments {
  std::string set, shards;
  fs::path datasets, output_dir;
  std::int64_t first = 0;
  bool list = false, dry_run = false;
  DownloadOptions options;
};

const char* name_of(State state) {
  switch (state) {
    case State::kDownloaded: return "downloaded";
    case State::kPresent: return "present";
    case State::kFailed: return "failed";
    case State::kNotFetched: return "not_fetched";
  }
  return "";
}

std::string size_text(const std::optional<std::uint64_t>& bytes) {
  return bytes ? human_bytes(static_cast<double>(*bytes)) : "size unknown";
}

ExitCode list(const DatasetTable& table, const Context& context) {
  if (context.json) {
    json sets = json::array();
    for (const Dataset& set : table.all()) {
      sets.push_back({{"name", set.name},
                      {"description", set.description},
                      {"licence", set.licence},
                      {"homepage", set.homepage},
                      {"files", set.files.size()}});
    }
    fmt::print("{}\n", json{{"sets", std::move(sets)}}.dump());
    return ExitCode::kOk;
  }
  for (const Dataset& set : table.all()) {
    fmt::print("{}: {}\n  {} {}{}{}\n", set.name, set.description, set.files.size(), set.files.size() == 1 ? "file" : "files",
               set.licence.empty() ? "" : ", licence: " + set.licence, set.homepage.empty() ? "" : ", " + set.homepage);
  }
  return ExitCode::kOk;
}

json to_json(const FileReport& file) {
  json object = {{"path", file.path.string()},
                 {"url", shown_url(file.file.url)},
                 {"state", name_of(file.state)},
                 {"bytes", nullptr},
                 {"received_bytes", file.received_bytes}};
  if (file.bytes) object["bytes"] = *file.bytes;
  if (file.partial_bytes > 0 && file.state != State::kDownloaded) object["partial_bytes"] = file.partial_bytes;
  if (!file.sha256.empty()) object["sha256"] = file.sha256;
  if (!file.error.empty()) object["error"] = file.error;
  return object;
}

void print_json(const DownloadReport& report, const Dataset& set, const fs::path& output_dir, bool dry_run) {
  json files = json::array();
  for (const FileReport& file : report.files) files.push_back(to_json(file));
  const json object = {{"set", set.name},
                       {"output_dir", output_dir.string()},
                       {"dry_run", dry_run},
                       {"downloaded", report.count(State::kDownloaded)},
                       {"present", report.count(State::kPresent)},
                       {"failed", report.count(State::kFailed)},
                       {"not_fetched", report.count(State::kNotFetched)},
                       {"received_bytes", report.received_bytes()},
                       {"interrupted", report.interrupted},
                       {"files", std::move(files)}};
  fmt::print("{}\n", object.dump(-1, ' ', false, json::error_handler_t::replace));
}

void print_plan(const DownloadReport& report) {
  double bytes = 0;
  std::size_t unknown = 0, to_fetch = 0;
  for (const FileReport& file : report.files) {
    std::string state = "to fetch";
    if (file.state == State::kPresent) {
      state = "present";
    } else {
      ++to_fetch;
      if (file.partial_bytes > 0) state = "to continue after " + human_bytes(static_cast<double>(file.partial_bytes));
      if (file.bytes) {
        bytes += static_cast<double>(*file.bytes - std::min(*file.bytes, file.partial_bytes));
      } else {
        ++unknown;
      }
    }
    fmt::print("{}: {}, {}, {}\n", file.path.string(), size_text(file.bytes), state, shown_url(file.file.url));
  }
  fmt::print("{} of {} files to fetch, {}{}\n", to_fetch, report.files.size(), human_bytes(bytes),
             unknown > 0 ? fmt::format(" and {} of unknown size", unknown) : "");
}

// What ended badly, a line each on standard error, and what that makes of the whole.
ExitCode conclude(const DownloadReport& report, const Context& context) {
  const std::size_t good = report.count(State::kDownloaded) + report.count(State::kPresent);
  const std::size_t failed = report.count(State::kFailed);
  const std::size_t rest = report.count(State::kNotFetched);
  if (failed == 0 && rest == 0) return ExitCode::kOk;
  if (report.interrupted) {
    if (!context.quiet) {
      fmt::print(stderr, "interrupted with {} of {} files whole; the same command continues\n", good, report.files.size());
    }
    return ExitCode::kPartial;
  }
  std::vector<std::string> errors;
  for (const FileReport& file : report.files) {
    if (file.state == State::kFailed) errors.push_back(file.error);
  }
  const std::string others = rest > 0 ? fmt::format("; {} more files were not tried", rest) : "";
  if (good == 0) {
    throw DataError(errors.front() + (failed > 1 ? fmt::format(" (and {} more files failed)", failed - 1) : "") + others);
  }
  for (const std::string& error : errors) fmt::print(stderr, "nanochat: {}\n", error);
  fmt::print(stderr, "nanochat: {} of {} files are whole{}; the same command tries the others again\n", good,
             report.files.size(), others);
  return ExitCode::kPartial;
}

ExitCode download(const DownloadArguments& arguments, Context& context) {
  DatasetTable table = DatasetTable::built_in();
  if (!arguments.datasets.empty()) table.merge_file(arguments.datasets);
  if (arguments.list) return list(table, context);
  if (arguments.set.empty()) throw ConfigError("no set is named; `nanochat data download --list` shows all");
  const Dataset& set = table.find(arguments.set);
  const std::vector<RemoteFile> files = select_files(set, arguments.shards, arguments.first);
  const fs::path output_dir = arguments.output_dir.empty() ? fs::path("data") / set.name : arguments.output_dir;

  install_interrupt_handlers();
  if (arguments.dry_run) {
    const DownloadReport plan = plan_download(files, output_dir, arguments.options, *context.progress);
    if (context.json) {
      print_json(plan, set, output_dir, true);
    } else {
      print_plan(plan);
    }
    return plan.interrupted ? ExitCode::kPartial : ExitCode::kOk;
  }
  const DownloadReport report = download_files(files, output_dir, arguments.options, *context.progress);
  if (context.json) {
    print_json(report, set, output_dir, false);
  } else if (!context.quiet && report.count(State::kFailed) < report.files.size()) {
    fmt::print("{}: {} downloaded ({} received), {} there before, {} missing{}\n", output_dir.string(),
               report.count(State::kDownloaded), human_bytes(static_cast<double>(report.received_bytes())),
               report.count(State::kPresent), report.count(State::kFailed) + report.count(State::kNotFetched),
               set.licence.empty() ? "" : "; licence: " + set.licence);
  }
  return conclude(report, context);
}

}  // namespace

void add_download(CommandLine& command_line) {
  auto arguments = std::make_shared<DownloadArguments>();
  DownloadOptions& options = arguments->options;
  Subcommand& command = command_line.add("data download",
                                         "Download a data set in parallel, resume interrupted downloads and verify "
                                         "every file.",
                                         "nanochat data download fineweb-edu --first 8 --output-dir data/fineweb-edu");
  command.option("set", &arguments->set, "Name of the data set; --list shows all names.");
  command.option("output_dir", &arguments->output_dir, "Folder for the files; default data/SET.");
  command.option("list", &arguments->list, "List the known data sets and exit.");
  command.option("datasets", &arguments->datasets,
                 "JSON file that describes more data sets, in the format of configs/datasets.json.");
  command.option("shards", &arguments->shards, "Download only these files of the set, numbered from 0: \"0-7,1822\".");
  command.option("first", &arguments->first, "Download only the first N files; 0 downloads all.").at_least(0);
  command.option("dry_run", &arguments->dry_run, "Show what would be downloaded and its size, without downloading.");
  command.option("mirror", &options.mirror, "URL to download from instead of the scheme and host of the data set's URL.");
  command.option("verify", &options.verify, "Read files that are already there again and compare their SHA-256.");
  command.option("workers", &options.workers, "Number of files to download at a time.").at_least(1).at_most(64);
  command.option("retries", &options.retry.retries, "Give up on a file after this many consecutive failures.").at_least(0);
  command
      .option("retry_delay", &options.retry.first_delay_seconds,
              "Upper bound in seconds of the random delay before the first retry. It doubles with each retry, "
              "up to 60 seconds.")
      .at_least(0);
  command.option("connect_timeout", &options.limits.connect_timeout_seconds, "Give up connecting after this many seconds.")
      .at_least(0.1);
  command
      .option("stall_timeout", &options.limits.stall_seconds,
              "Reconnect when the rate stays below 1 kB per second for this many seconds.")
      .at_least(0.1);
  command.positional("set");
  command.run([arguments](Context& context) { return download(*arguments, context); });
}

}  // namespace nanochat::cli
