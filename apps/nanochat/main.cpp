#include "command_line.h"
#include "commands.h"
#include "core/interrupt.h"

int main(int argc, char** argv) {
  nanochat::install_interrupt_handlers();
  nanochat::cli::CommandLine command_line;
#ifdef NANOCHAT_WITH_TOKENIZER
  nanochat::cli::add_tokenizer(command_line);
#endif
#ifdef NANOCHAT_WITH_DATA
  nanochat::cli::add_data(command_line);
#endif
#ifdef NANOCHAT_WITH_PRETRAIN
  nanochat::cli::add_pretrain(command_line);
#endif
#ifdef NANOCHAT_WITH_EVAL
  nanochat::cli::add_eval(command_line);
#endif
#ifdef NANOCHAT_WITH_INFER
  nanochat::cli::add_infer(command_line);
#endif
#ifdef NANOCHAT_WITH_INFO
  nanochat::cli::add_info(command_line);
#endif
#ifdef NANOCHAT_WITH_BENCH
  nanochat::cli::add_bench(command_line);
#endif
  return command_line.main(argc, argv);
}
