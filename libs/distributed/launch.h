#pragma once
// Starts the processes of a run on this machine, as torchrun does on its machines: with RANK, WORLD_SIZE, LOCAL_RANK,
// LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Holds the store at which they meet (the first machine's launcher
// does), hands on signals, and when one process fails ends the others, and starts all again where that is wanted.

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

struct LaunchOptions {
  int processes = 1;                      // of this machine
  int nodes = 1, node_rank = 0;           // machines, and which of them this is
  std::string master_addr = "127.0.0.1";  // of the first machine
  int master_port = 0;                    // 0: a free one; with several machines it must be given
  int max_restarts = 0;
  double grace_seconds = 30;      // between asking the others to end and ending them by force
  std::filesystem::path log_dir = {};  // output of ranks other than 0 goes to rank-R.log here; empty: to relay
};

// command[0] is the program. `resume` is appended when it is started again. `relay` gets lines of the ranks other
// than 0, without their newline; rank 0 has the output of this process. The exit code: 0, or that of the first
// process that failed, 128 + N when signal N ended it. For one call at a time; signals that come meanwhile are taken
// by it. Throws ConfigError for a taken port or an address of another machine, IoError.
int launch(const LaunchOptions& options, const std::vector<std::string>& command, const std::vector<std::string>& resume,
           const std::function<void(std::string_view)>& relay);

}  // namespace nanochat
