#include <unistd.h>

#include <string_view>
#include <vector>

#include "command_line.h"
#include "commands.h"
#include "core/interrupt.h"

namespace {

// A thread that reaches the end of a parallel region early waits for the others, by default for several milliseconds without
// sleeping. Where another program takes a part of a core, that time is missing to the thread that everybody waits for: beside a
// busy process on two cores, training is a third faster when threads sleep after some tens of microseconds, and on an idle
// machine it is as fast. Much shorter waits would slow decoding on an idle machine. libgomp reads the variable when it is loaded, so the program starts itself again with it. This comes before the
// constructors of all libraries, which are most of the start, and costs a few milliseconds. A failure leaves the waits long.
void shorten_waits(int /*argc*/, char** argv, char** environment) {
  static char spins[] = "GOMP_SPINCOUNT=3000";
  std::vector<char*> with_spins = {spins};
  for (char** variable = environment; *variable != nullptr; ++variable) {  // std::getenv() finds nothing yet
    const std::string_view text = *variable;
    if (text.starts_with("GOMP_SPINCOUNT=") || text.starts_with("OMP_WAIT_POLICY=")) return;
    with_spins.push_back(*variable);
  }
  with_spins.push_back(nullptr);
  char program[4096];
  const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = '\0';
  ::execve(program, argv, with_spins.data());
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // not ready for other code so early
[[gnu::section(".preinit_array"), gnu::used]] void (*const before_libraries)(int, char**, char**) = shorten_waits;
#endif

}  // namespace

int main(int argc, char** argv) {
  nanochat::install_interrupt_handlers();
  nanochat::cli::CommandLine command_line;
  nanochat::cli::add_every_command(command_line);
  return command_line.main(argc, argv);
}
