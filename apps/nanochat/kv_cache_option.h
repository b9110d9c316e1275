#pragma once
// --kv-cache-dtype auto|fp8, declared the same in every command that generates text.

#include <c10/core/Device.h>

#include <span>
#include <string>

#include "command_line.h"

namespace nanochat {
struct Runtime;
}

namespace nanochat::cli {

struct KvCacheOption {
  std::string dtype = "auto";
  void declare(Subcommand& command);
  // Whether keys and values are kept in 8 bits. Throws ConfigError if that does not fit the precision, the device of `runtime` or one
  // of the others.
  bool fp8(const Runtime& runtime, std::span<const at::Device> others = {}) const;
};

}  // namespace nanochat::cli
