#include "core/terminal.h"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace nanochat {
namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

}  // namespace

bool is_terminal(int fd) { return ::isatty(fd) == 1 && variable("TERM") != "dumb"; }

bool wants_color(int fd) { return is_terminal(fd) && variable("NO_COLOR").empty(); }

}  // namespace nanochat
