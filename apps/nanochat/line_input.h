#pragma once
// Lines of standard input, for commands that answer one after another.

#include <optional>
#include <string>

namespace nanochat::cli {

// Waits by poll, which a signal ends, so that Ctrl-C works at the prompt too.
class LineInput {
 public:
  // Without its line feed or CR LF, and the first without a byte order mark; nullopt at the end of the input or when
  // interrupted (core/interrupt.h tells).
  std::optional<std::string> next();

 private:
  std::optional<std::string> next_as_it_is();

  std::string buffer_;
  bool first_ = true, ended_ = false;
};

}  // namespace nanochat::cli
