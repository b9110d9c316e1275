#pragma once
// Starts the processes of a run on this machine, like torchrun, with the variables RANK, WORLD_SIZE, LOCAL_RANK,
// LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The launcher of the first machine hosts the key-value store through which
// processes connect. The launcher forwards signals. If a process fails, it ends the others, and can restart all.

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

struct LaunchOptions {
  int processes = 1;                      // on this machine
  int nodes = 1, node_rank = 0;           // number of machines, and the number of this one
  std::string master_addr = "127.0.0.1";  // address of the first machine
  int master_port = 0;                    // 0: any free port; must be set if there are several machines
  int max_restarts = 0;
  double grace_seconds = 30;      // between SIGTERM and SIGKILL to the other processes
  std::filesystem::path log_dir = {};  // folder for rank-R.log, the output of ranks other than 0; empty: call relay
};

// command[0] is the program. `resume` is appended to the command at a restart. `relay` gets each line of output of ranks other
// than 0, without its newline; rank 0 writes to the output of this process. Returns 0, or the exit code of the first process
// that failed, which is 128 + N if signal N ended it. Only one call at a time; it handles signals while it runs. Throws
// ConfigError for a port in use or an address of another machine, and IoError.
int launch(const LaunchOptions& options, const std::vector<std::string>& command, const std::vector<std::string>& resume,
           const std::function<void(std::string_view)>& relay);

}  // namespace nanochat
