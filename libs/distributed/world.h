#pragma once
// Which process of how many this is, from the environment that started it: torchrun or `nanochat launch` (RANK,
// WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), Open MPI (OMPI_COMM_WORLD_*) or Slurm (SLURM_PROCID,
// SLURM_NTASKS, SLURM_LOCALID, SLURM_NODELIST). The first of the three whose variables are set decides; MASTER_ADDR
// and MASTER_PORT, where set, go before what Open MPI and Slurm imply. An empty variable counts as unset.

#include <functional>
#include <optional>
#include <string>

namespace nanochat {

struct WorldConfig {
  int rank = 0, size = 1;   // among all processes
  int local_rank = 0;       // among those of this machine: picks the GPU
  int local_size = 0;       // processes of this machine; 0: not said
  std::string master_addr;  // where the store is; empty when alone
  int master_port = 0;
  bool launcher_has_store = false;  // the launcher holds the store, else rank 0 does
  int attempt = 0;                  // restarts by the launcher before this one
  std::string launcher;             // "torchrun", "Open MPI", "Slurm" or empty: whose variables were read

  bool alone() const { return size == 1; }
};

// Finds the value of a variable; nullopt when unset.
using EnvironmentLookup = std::function<std::optional<std::string>(const std::string& name)>;
std::optional<std::string> process_environment(const std::string& name);

// Throws ConfigError naming the variables that are missing, malformed or contradict each other.
WorldConfig read_world(const EnvironmentLookup& lookup = process_environment);

// The first host of a list as Slurm writes it: "gpu[003-005,9],login" gives "gpu003". Throws ConfigError.
std::string first_slurm_host(const std::string& list);

}  // namespace nanochat
