#pragma once
// What commands that run as several processes share: see libs/distributed.

#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "command_line.h"
#include "distributed/communicator.h"
#include "runtime/runtime.h"

namespace nanochat::cli {

std::string build_name();  // "0.1.0 (53ce2be1f0aa)", a plus sign where files differ from the commit

// Options for the communicator of a command: its build, and a last resort that prints the message and ends the
// process.
CommunicatorOptions communicator_options(const std::string& command);

// The processes of one run of a training command, from this one's point of view.
class Ranks {
 public:
  // Meets the others, if there are any, and compares `configuration` with rank 0's. Of the ranks other than 0 only
  // warnings and errors go to standard error from now on. Throws as Communicator.
  Ranks(CommunicatorOptions options, const RuntimeOptions& runtime, const nlohmann::json& configuration);

  Communicator& communicator() { return *communicator_; }
  bool is_root() const { return communicator_->is_root(); }  // the one that shows progress and prints results
  ProgressReporter& progress(Context& context) { return is_root() ? *context.progress : silent_; }

 private:
  SilentProgress silent_;
  std::unique_ptr<Communicator> communicator_;
};

// Of a training command: its configuration and what is not kept with a run but must be the same, too.
nlohmann::json shared_configuration(Subcommand& command);

}  // namespace nanochat::cli
