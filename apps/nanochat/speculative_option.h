#pragma once
// --speculative none|ngram, declared the same in every command that generates text.

#include <string>

#include "command_line.h"
#include "inference/speculative.h"

namespace nanochat::cli {

struct SpeculativeOption {
  std::string value{speculative_name(Speculative::kNone)};
  void declare(Subcommand& command);
  Speculative get() const;
};

}  // namespace nanochat::cli
