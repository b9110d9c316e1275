#pragma once
// --kv-cache-dtype auto|fp8, declared the same in every command that generates text.

#include <string>

#include "command_line.h"

namespace nanochat {
struct Runtime;
}

namespace nanochat::cli {

struct KvCacheOption {
  std::string dtype = "auto";
  void declare(Subcommand& command);
  // Whether keys and values are kept in 8 bits. Throws ConfigError if that does not fit the device and precision.
  bool fp8(const Runtime& runtime) const;
};

}  // namespace nanochat::cli
