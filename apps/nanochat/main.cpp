#include <unistd.h>

#include <string_view>
#include <vector>

#include "command_line.h"
#include "commands.h"
#include "core/interrupt.h"

namespace {

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they are not ready for other code so early
// Commands that compute one token after the other: nanochat serve, infer, bench serve, bench infer.
bool decodes(char** argv) {
  if (argv[0] == nullptr || argv[1] == nullptr) return false;
  const std::string_view first = argv[1];
  const std::string_view command = first == "bench" && argv[2] != nullptr ? argv[2] : first;
  return command == "serve" || command == "infer";
}

// A thread that reaches the end of a parallel region early waits for the others, by default for several milliseconds without
// sleeping. Where another program takes a part of a core, that time is missing to the thread that everybody waits for: beside a
// busy process on two cores, training is a third faster when threads sleep after some microseconds, and on an idle machine it
// is as fast. A decoding step has many short regions, and waking threads for each would cost a tenth of it, so threads then
// wait for some tenths of a millisecond. libgomp reads the variable when it is loaded, so the program starts itself again with
// it. This comes before the constructors of all libraries, which are most of the start, and costs a few milliseconds. A failure
// leaves the waits long.
void shorten_waits(int /*argc*/, char** argv, char** environment) {
  static char short_spins[] = "GOMP_SPINCOUNT=1000", longer_spins[] = "GOMP_SPINCOUNT=10000";
  char* const spins = decodes(argv) ? longer_spins : short_spins;
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

[[gnu::section(".preinit_array"), gnu::used]] void (*const before_libraries)(int, char**, char**) = shorten_waits;
#endif

}  // namespace

int main(int argc, char** argv) {
  nanochat::install_interrupt_handlers();
  nanochat::cli::CommandLine command_line;
  nanochat::cli::add_every_command(command_line);
  return command_line.main(argc, argv);
}
