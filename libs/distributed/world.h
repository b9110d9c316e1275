#pragma once
// Rank and number of processes, from the environment variables of the launcher: torchrun or `nanochat launch` (RANK,
// WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), Open MPI (OMPI_COMM_WORLD_*) or Slurm (SLURM_PROCID, SLURM_NTASKS,
// SLURM_LOCALID, SLURM_NODELIST). The first of the three whose variables are set is used. MASTER_ADDR and MASTER_PORT take
// precedence over the addresses that Open MPI and Slurm imply. An empty variable counts as not set.

#include <functional>
#include <optional>
#include <string>

namespace nanochat {

struct WorldConfig {
  int rank = 0, size = 1;   // among all processes
  int local_rank = 0;       // among the processes of this machine; selects the GPU
  int local_size = 0;       // number of processes on this machine; 0: unknown
  std::string master_addr;  // host of the store; empty with one process
  int master_port = 0;
  bool launcher_has_store = false;  // the launcher hosts the store; otherwise rank 0 does
  int attempt = 0;                  // number of restarts by the launcher so far
  std::string launcher;             // whose variables were read: "torchrun", "Open MPI", "Slurm" or empty

  bool alone() const { return size == 1; }
};

// Returns the value of a variable, or nullopt if it is not set.
using EnvironmentLookup = std::function<std::optional<std::string>(const std::string& name)>;
std::optional<std::string> process_environment(const std::string& name);

// Throws ConfigError with the variables that are missing, malformed or contradictory.
WorldConfig read_world(const EnvironmentLookup& lookup = process_environment);

// The first host of a Slurm node list: "gpu[003-005,9],login" gives "gpu003". Throws ConfigError.
std::string first_slurm_host(const std::string& list);

}  // namespace nanochat
