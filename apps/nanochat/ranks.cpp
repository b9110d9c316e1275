#include "ranks.h"

#include <unistd.h>

#include <cstdio>

#include <spdlog/fmt/fmt.h>

#include "checkpoint/versions.h"
#include "core/errors.h"
#include "nanochat_commit.h"

namespace nanochat::cli {

std::string build_name() {
  const std::string commit = NANOCHAT_COMMIT;
  return fmt::format("{} ({})", program_version(), commit.empty() ? "no commit" : commit);
}

CommunicatorOptions communicator_options(const std::string& command) {
  CommunicatorOptions options;
  options.build = build_name();
  options.last_resort = [command](ExitCode code, const std::string& message) {
    std::fprintf(stderr, "nanochat %s: %s\n", command.c_str(), message.c_str());
    std::fflush(stderr);
    ::_exit(static_cast<int>(code));
  };
  return options;
}

void require_alone(const std::string& command) {
  const WorldConfig world = read_world();
  if (world.alone()) return;
  throw ConfigError(fmt::format("this is rank {} of {} by {}'s variables, but {} runs as one process", world.rank,
                                world.size, world.launcher, command));
}

}  // namespace nanochat::cli
