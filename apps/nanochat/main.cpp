#include "command_line.h"
#include "commands.h"
#include "core/interrupt.h"

int main(int argc, char** argv) {
  nanochat::install_interrupt_handlers();
  nanochat::cli::CommandLine command_line;
  nanochat::cli::add_every_command(command_line);
  return command_line.main(argc, argv);
}
