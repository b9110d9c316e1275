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
      "launch", "Run a command as several processes, one for each GPU, on one or more machines",
      "nanochat launch --nproc 8 -- pretrain --data-dir shards --depth 20 --output-dir runs/base");
  options.processes = 0;
  command.option("nproc", options.processes, "processes on this machine; 0: one for each GPU").at_least(0).at_most(1024);
  command.option("nnodes", options.nodes, "machines; each runs this command with the same --nproc").at_least(1);
  command.option("node_rank", options.node_rank, "number of this machine, from 0").at_least(0);
  Option& address = command.option("master_addr", options.master_addr, "address of machine 0, at which the others reach it");
  command.option("master_port", options.master_port, "port of machine 0; 0: a free one, on one machine alone")
      .at_least(0)
      .at_most(65535);
  command
      .option("max_restarts", options.max_restarts,
              "start all processes again, with --resume, up to N times when one fails; not after wrong usage")
      .at_least(0);
  command.option("grace", options.grace_seconds, "seconds that the others have to end when one fails, before they are killed")
      .at_least(0);
  command.option("log_dir", options.log_dir,
                 "write the output of ranks other than 0 to DIR/rank-R.log; empty: to standard error, "
                 "each line with its rank");
  declare_distributed_options(command.options(), arguments->communicator);
  command.option("command", arguments->command, "the command and its options, after --");
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
