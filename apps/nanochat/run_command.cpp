#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <thread>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/json_file.h"
#include "command_line.h"
#include "commands.h"
#include "core/atomic_file.h"
#include "core/elapsed.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "plan_report.h"
#include "training/chain/chain.h"
#include "training/chain/plan.h"
#include "training/trainer/training_plan.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;

struct RunArguments {
  fs::path file;
  bool plan = false;
  ClusterOptions cluster;
  std::string until;
};

std::string human_count(std::int64_t n) { return n > 0 ? with_commas(n) : "-"; }

void print_plan(const Chain& chain, const std::vector<StepPlan>& plans, const Cluster& cluster, bool as_json) {
  StepPlan total;
  nlohmann::json json = nlohmann::json::array();
  if (!as_json) {
    if (!chain.hardware.name.empty()) std::cout << fmt::format("{}: {}\n", chain.name, chain.hardware.name);
    std::cout << fmt::format("{:<10} {:<16} {:>15} {:>8} {:>16} {:>11} {:>11} {:>11} {:>9}\n", "step", "command", "parameters",
                             "steps", "tokens", "memory", "sent/step", "disk", "time");
  }
  const auto bytes = [](std::int64_t n) { return n > 0 ? human_bytes(static_cast<double>(n)) : std::string("-"); };
  for (const StepPlan& plan : plans) {
    total.disk += plan.disk;
    total.seconds += plan.seconds;
    total.memory = std::max(total.memory, plan.memory);
    total.host_memory = std::max(total.host_memory, plan.host_memory);
    if (as_json) {
      json.push_back({{"step", plan.name},
                      {"command", plan.command},
                      {"parameters", plan.parameters},
                      {"steps", plan.steps},
                      {"tokens", plan.tokens},
                      {"memory_bytes", plan.memory},
                      {"host_memory_bytes", plan.host_memory},
                      {"sent_bytes", plan.sent},
                      {"communication_seconds", plan.communication_seconds},
                      {"disk_bytes", plan.disk},
                      {"seconds", plan.seconds}});
    } else {
      std::cout << fmt::format("{:<10} {:<16} {:>15} {:>8} {:>16} {:>11} {:>11} {:>11} {:>9}\n", plan.name, plan.command,
                               human_count(plan.parameters), human_count(plan.steps), human_count(plan.tokens),
                               bytes(plan.memory), bytes(plan.sent), bytes(plan.disk),
                               plan.seconds > 0 ? human_duration(plan.seconds) : "-");
    }
  }
  if (as_json) {
    std::cout << json.dump() << '\n';
  } else {
    std::cout << fmt::format("in all: {} of disk, {} of memory at most, {} of training\n", bytes(total.disk),
                             bytes(total.memory), human_duration(total.seconds));
    std::cout << fmt::format("{} of host memory; {}\n", bytes(total.host_memory), memory_remark(cluster, chain.hardware.gpu));
  }
}

std::vector<std::string> words_of(const std::string& command) {
  std::istringstream stream(command);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// What asks a child to save and end. A child in the foreground of a terminal has had the interrupt already, and ends at
// once at a second one, but never at a SIGHUP; nohup makes it ignore that.
int gentle_signal() {
  struct sigaction action {};
  const bool ignored = ::sigaction(SIGHUP, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
  return ignored ? SIGTERM : SIGHUP;
}

// Runs this program with these words, and hands on an interrupt. The exit code; 128 + the signal that ended it.
int run_program(const std::vector<std::string>& words) {
  std::string self = fs::read_symlink("/proc/self/exe").string();
  std::vector<char*> arguments{self.data()};
  std::vector<std::string> owned = words;
  for (std::string& word : owned) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  if (const int error = ::posix_spawn(&child, self.c_str(), nullptr, nullptr, arguments.data(), environ); error != 0) {
    throw IoError(fmt::format("{}: cannot be started: {}", self, std::error_code(error, std::generic_category()).message()));
  }
  int status = 0;
  bool told = false;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (interrupt_requested() && !told) {
      ::kill(child, gentle_signal());
      told = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

ExitCode run_step(const ChainStep& step, ChainRecord& record, const Context& context) {
  const fs::path options = record.options_file(step);
  fs::create_directories(options.parent_path());
  write_file_atomically(options, to_json_text(step.options));
  std::vector<std::string> words = words_of(step.command);
  words.insert(words.end(), {"--config", options.string()});
  for (const std::string& flag : resume_flags(step)) words.push_back(flag);
  if (context.quiet) words.push_back("--quiet");
  log_info("step {}: nanochat {}", step.name, fmt::join(words, " "));
  const auto start = SteadyClock::now();
  const int code = run_program(words);
  if (code != 0) return static_cast<ExitCode>(code);
  if (interrupt_requested()) return ExitCode::kOther;  // it saved, but may not have ended its work
  record.mark_done(step, seconds_since(start));
  return ExitCode::kOk;
}

ExitCode run_chain(const RunArguments& arguments, const Context& context) {
  const Chain chain = load_chain(arguments.file);
  const Cluster cluster = arguments.cluster.cluster();
  const std::vector<StepPlan> plans = plan_chain(chain, cluster);  // a wrong option of the last step stops the first
  if (arguments.plan) {
    print_plan(chain, plans, cluster, context.json);
    return ExitCode::kOk;
  }
  ChainRecord record(chain);
  for (const ChainStep& step : chain.steps) {
    if (record.done(step)) {
      log_info("step {}: done before", step.name);
    } else if (const ExitCode code = run_step(step, record, context); code != ExitCode::kOk) {
      fmt::print(stderr, "nanochat run: step {} did not end well; `nanochat run {}` goes on from there\n", step.name,
                 arguments.file.string());
      return code;
    }
    if (step.name == arguments.until) break;
  }
  return ExitCode::kOk;
}

}  // namespace

void add_run(CommandLine& command_line) {
  auto arguments = std::make_shared<RunArguments>();
  Subcommand& command = command_line.add("run",
                                         "Run or resume a chain of commands: tokenizer, data preparation and training stages.",
                                         "nanochat run configs/toy.json");
  command.option("chain", arguments->file, "JSON file that lists the steps, such as those in configs/.");
  command.option("plan", arguments->plan,
                 "Print the expected memory, communication, disk space and time of each step, without running any.");
  declare_cluster_options(command.options(), arguments->cluster);
  command.option("until", arguments->until, "Stop after the step with this name.");
  command.positional("chain").required("chain");
  command.run([arguments, &command](Context& context) {
    require_plan(command.options(), arguments->plan);
    return run_chain(*arguments, context);
  });
}

}  // namespace nanochat::cli
