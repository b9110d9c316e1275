#include "ranks.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "runtime/versions.h"
#include "core/errors.h"
#include "core/log.h"
#include "distributed/world.h"
#include "nanochat_commit.h"
#include "ops/device.h"

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

Ranks::Ranks(CommunicatorOptions options, const RuntimeOptions& runtime, const nlohmann::json& configuration) {
  const WorldConfig world = read_world();
  if (world.alone()) {
    communicator_ = std::make_unique<Communicator>();
    const int gpus = runtime.device == "auto" || runtime.device == "cuda" ? ops::cuda_devices() : 0;
    if (gpus > 1) {
      log_warn("this process uses one of the {} GPUs of this machine; `nanochat launch -- COMMAND` uses all of them", gpus);
    }
    return;
  }
  if (world.rank != 0) limit_terminal_log(LogLevel::kWarn);
  options.device = select_device(runtime, {world.local_rank, std::max(1, world.local_size)});
  communicator_ = std::make_unique<Communicator>(world, std::move(options));
  communicator_->require_same("configuration", configuration);
}

nlohmann::json shared_configuration(Subcommand& command) {
  nlohmann::json configuration = command.options().resolved();
  for (const char* name : {"output_dir", "resume"}) {
    if (const Option* option = command.options().find(name)) configuration[name] = option->value();
  }
  return configuration;
}

}  // namespace nanochat::cli
