#pragma once
// What commands that run on several processes share: see libs/distributed.

#include <string>

#include "distributed/communicator.h"

namespace nanochat::cli {

std::string build_name();  // "0.1.0 (53ce2be1f0aa)", a plus sign where files differ from the commit

// Options for the communicator of a command: its build, and a last resort that prints the message and ends the
// process.
CommunicatorOptions communicator_options(const std::string& command);

// Throws ConfigError where this process is one of several, which the command cannot be.
void require_alone(const std::string& command);

}  // namespace nanochat::cli
