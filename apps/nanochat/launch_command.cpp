// nanochat launch: the processes of a run on this machine.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/errors.h"
#include "distributed/communicator.h"
#include "distributed/launch.h"
#include "ops/device.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;

struct LaunchArguments {
  LaunchOptions options;
  CommunicatorOptions communicator;
  std::vector<std::string> command;
};

void check(LaunchArguments& arguments, bool address_given) {
  LaunchOptions& options = arguments.options;
  if (options.processes == 0) options.processes = ops::cuda_devices();
  if (options.processes == 0) {
    throw ConfigError("--nproc: this machine has no usable GPU to count; give the number of processes");
  }
  if (options.node_rank >= options.nodes) {
    throw ConfigError(fmt::format("--node-rank {}: must be below --nnodes {}", options.node_rank, options.nodes));
  }
  if (options.nodes > 1 && (!address_given || options.master_port == 0)) {
    throw ConfigError(fmt::format("--nnodes {}: needs --master-addr and --master-port, the same on all machines",
                                  options.nodes));
  }
}

// What makes the command go on from its last checkpoint.
std::vector<std::string> resume_words(const CommandLine& command_line, const std::vector<std::string>& command) {
  Subcommand* found = command_line.find_command(command);
  if (found == nullptr) {
    throw ConfigError(fmt::format("\"{}\" is no command of nanochat; after -- comes one, such as: pretrain --data-dir shards",
                                  command.front()));
  }
  const Option* resume = found->options().find("resume");
  if (resume == nullptr) return {};
  return resume->is_flag() ? std::vector<std::string>{resume->flag()} : std::vector<std::string>{resume->flag(), "latest"};
}

}  // namespace

void add_launch(CommandLine& command_line) {
  auto arguments = std::make_shared<LaunchArguments>();
  LaunchOptions& options = arguments->options;
  Subcommand& command = command_line.add(
      "launch", "Run a command as several processes, one for each GPU, on one or more machines (like torchrun).",
      "nanochat launch --nproc 8 -- pretrain --data-dir shards --depth 20 --output-dir runs/base");
  options.processes = 0;
  command.option("nproc", options.processes, "Number of processes on this machine; 0 uses one for each GPU.")
      .at_least(0)
      .at_most(1024);
  command.option("nnodes", options.nodes, "Number of machines. Run this command on each of them, with the same --nproc.")
      .at_least(1);
  command.option("node_rank", options.node_rank, "Number of this machine, from 0 to --nnodes - 1.").at_least(0);
  Option& address = command.option("master_addr", options.master_addr,
                                   "Address or host name of machine 0, at which all machines can reach it.");
  command
      .option("master_port", options.master_port,
              "Port on machine 0 where the processes meet. 0 picks a free port, which is possible only with one machine.")
      .at_least(0)
      .at_most(65535);
  command
      .option(
          "max_restarts", options.max_restarts,
          "When a process fails, restart all of them with --resume, at most this many times. Errors in usage are not retried.")
      .at_least(0);
  command
      .option("grace", options.grace_seconds,
              "When a process fails, wait this many seconds for the others to end before they are killed.")
      .at_least(0);
  command.option("log_dir", options.log_dir,
                 "Folder for the output of the processes other than rank 0, in files rank-R.log. Empty writes it to standard "
                 "error; each line begins with the rank.");
  declare_distributed_options(command.options(), arguments->communicator);
  command.option("command", arguments->command, "The command to run and its options, after --.");
  command.positional("command", true);
  command.run([arguments, &command, &command_line, &address](Context&) {
    check(*arguments, address.source() != "default");
    const std::vector<std::string> resume = resume_words(command_line, arguments->command);
    if (const Option* timeout = command.options().find("dist_timeout"); timeout->source() != "default") {
      ::setenv(timeout->environment().c_str(), fmt::format("{}", arguments->communicator.timeout_seconds).c_str(), 1);
    }
    std::vector<std::string> words = {fs::read_symlink("/proc/self/exe").string()};
    words.insert(words.end(), arguments->command.begin(), arguments->command.end());
    const auto relay = [](std::string_view line) { fmt::print(stderr, "{}\n", line); };
    return static_cast<ExitCode>(launch(arguments->options, words, resume, relay));
  });
}

}  // namespace nanochat::cli
