#include "distributed/world.h"

#include <charconv>
#include <cstdlib>
#include <vector>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/errors.h"
#include "core/random.h"

namespace nanochat {
namespace {

class Variables {
 public:
  explicit Variables(const EnvironmentLookup& lookup) : lookup_(lookup) {}

  std::optional<std::string> text(const std::string& name) const {
    auto value = lookup_(name);
    return value && !value->empty() ? value : std::nullopt;
  }
  bool has(const std::string& name) const { return text(name).has_value(); }

  std::optional<int> number(const std::string& name, int minimum, int maximum) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    int parsed = 0;
    const char* end = value->data() + value->size();
    const auto [stopped, error] = std::from_chars(value->data(), end, parsed);
    if (error != std::errc() || stopped != end || parsed < minimum || parsed > maximum) {
      throw ConfigError(fmt::format("{} is \"{}\", expected a whole number from {} to {}", name, *value, minimum, maximum));
    }
    return parsed;
  }

 private:
  const EnvironmentLookup& lookup_;
};

constexpr int kMost = 1 << 20;  // ranks

// The names by which one launcher says the same things.
struct Names {
  const char* launcher;
  const char *rank, *size, *local_rank, *local_size;
};
constexpr Names kTorchrun{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Names kOpenMpi{"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                         "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names kSlurm{"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""};

void require(const Variables& variables, const Names& names, const std::vector<std::string>& needed) {
  std::vector<std::string> missing, present;
  for (const std::string& name : needed) (variables.has(name) ? present : missing).push_back(name);
  if (missing.empty()) return;
  throw ConfigError(fmt::format("{} {} set but {} {} not; {} sets all of {}", fmt::join(present, ", "),
                                present.size() == 1 ? "is" : "are", fmt::join(missing, ", "),
                                missing.size() == 1 ? "is" : "are",
                                std::string(names.launcher) == "torchrun" ? "torchrun or nanochat launch" : names.launcher,
                                fmt::join(needed, ", ")));
}

void require_consistent(const WorldConfig& world, const Names& names) {
  const auto contradiction = [](const char* small, int a, const char* large, int b, const char* relation) {
    throw ConfigError(fmt::format("{} is {} and {} is {}: {} must be {} {}", small, a, large, b, small, relation, large));
  };
  if (world.rank >= world.size) contradiction(names.rank, world.rank, names.size, world.size, "below");
  if (world.local_rank > world.rank) contradiction(names.local_rank, world.local_rank, names.rank, world.rank, "at most");
  if (world.local_size == 0) return;
  if (world.local_size > world.size) contradiction(names.local_size, world.local_size, names.size, world.size, "at most");
  if (world.local_rank >= world.local_size) {
    contradiction(names.local_rank, world.local_rank, names.local_size, world.local_size, "below");
  }
}

WorldConfig read_ranks(const Variables& variables, const Names& names) {
  WorldConfig world;
  world.launcher = names.launcher;
  std::vector<std::string> needed = {names.rank, names.size};
  if (variables.has(names.local_rank)) needed.emplace_back(names.local_rank);
  require(variables, names, needed);
  world.size = *variables.number(names.size, 1, kMost);
  if (world.size > 1) require(variables, names, {names.rank, names.size, names.local_rank});
  world.rank = *variables.number(names.rank, 0, kMost);
  world.local_rank = variables.number(names.local_rank, 0, kMost).value_or(0);
  if (names.local_size[0] != '\0') world.local_size = variables.number(names.local_size, 1, kMost).value_or(0);
  require_consistent(world, names);
  return world;
}

// Jobs of one machine get different ports; below those that the system gives to outgoing connections.
int port_of_job(const std::string& job) { return 12000 + static_cast<int>(derive_seed(0, job) % 20000); }

void read_master(const Variables& variables, WorldConfig& world) {
  if (const auto address = variables.text("MASTER_ADDR")) world.master_addr = *address;
  if (const auto port = variables.number("MASTER_PORT", 1, 65535)) world.master_port = *port;
}

WorldConfig read_torchrun(const Variables& variables) {
  WorldConfig world = read_ranks(variables, kTorchrun);
  if (world.alone()) return world;
  require(variables, kTorchrun, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"});
  read_master(variables, world);
  world.launcher_has_store = variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  world.attempt = variables.number("TORCHELASTIC_RESTART_COUNT", 0, kMost).value_or(0);
  return world;
}

WorldConfig read_open_mpi(const Variables& variables) {
  WorldConfig world = read_ranks(variables, kOpenMpi);
  if (world.alone()) return world;
  world.master_port = port_of_job(variables.text("PMIX_NAMESPACE").value_or(""));
  if (world.local_size == world.size) world.master_addr = "127.0.0.1";
  read_master(variables, world);
  if (world.master_addr.empty()) {
    throw ConfigError(
        fmt::format("MASTER_ADDR is not set, and Open MPI's {} ranks are on several machines; give the address "
                    "of rank 0's by mpirun -x MASTER_ADDR=HOST",
                    world.size));
  }
  return world;
}

WorldConfig read_slurm(const Variables& variables) {
  // Within a step, the step's numbers go before those of the whole job.
  const bool step = variables.has("SLURM_STEP_NUM_TASKS");
  Names names = kSlurm;
  if (step) names.size = "SLURM_STEP_NUM_TASKS";
  WorldConfig world = read_ranks(variables, names);
  if (world.alone()) return world;
  const auto nodes = variables.number(step ? "SLURM_STEP_NUM_NODES" : "SLURM_NNODES", 1, kMost);
  if (nodes == 1) world.local_size = world.size;
  world.master_port = port_of_job(variables.text("SLURM_JOB_ID").value_or("") + "." +
                                  variables.text("SLURM_STEP_ID").value_or(""));
  for (const char* list : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}) {
    if (const auto hosts = variables.text(list)) {
      world.master_addr = first_slurm_host(*hosts);
      break;
    }
  }
  read_master(variables, world);
  if (world.master_addr.empty()) {
    throw ConfigError(
        "SLURM_PROCID and SLURM_NTASKS are set but neither SLURM_NODELIST nor MASTER_ADDR is; srun sets the first");
  }
  return world;
}

}  // namespace

std::optional<std::string> process_environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

std::string first_slurm_host(const std::string& list) {
  std::string host;
  const auto malformed = [&] {
    return ConfigError(fmt::format("SLURM_NODELIST is \"{}\", which is no list of hosts such as node[01-04]", list));
  };
  for (std::size_t i = 0; i < list.size() && list[i] != ','; ++i) {
    if (list[i] == ']') throw malformed();
    if (list[i] != '[') {
      host += list[i];
      continue;
    }
    const std::size_t close = list.find(']', i);
    if (close == std::string::npos) throw malformed();
    const std::string number = list.substr(i + 1, list.find_first_of(",-]", i) - i - 1);
    if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos) throw malformed();
    host += number;
    i = close;
  }
  if (host.empty()) throw malformed();
  return host;
}

WorldConfig read_world(const EnvironmentLookup& lookup) {
  const Variables variables(lookup);
  if (variables.has("RANK") || variables.has("WORLD_SIZE") || variables.has("LOCAL_RANK")) return read_torchrun(variables);
  if (variables.has("OMPI_COMM_WORLD_RANK") || variables.has("OMPI_COMM_WORLD_SIZE")) return read_open_mpi(variables);
  // The script of a batch job has SLURM_PROCID too, but is one process: srun alone starts the tasks, as a step.
  const bool batch_script = variables.has("SLURM_JOB_ID") && !variables.has("SLURM_STEP_ID");
  if (variables.has("SLURM_PROCID") && !batch_script) return read_slurm(variables);
  return {};
}

}  // namespace nanochat
