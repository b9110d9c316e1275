#include "command_line.h"
#include "commands.h"
#include "core/interrupt.h"

int main(int argc, char** argv) {
  nanochat::install_interrupt_handlers();
  nanochat::cli::CommandLine command_line;
  nanochat::cli::add_tokenizer(command_line);
  nanochat::cli::add_data(command_line);
  nanochat::cli::add_pretrain(command_line);
  nanochat::cli::add_midtrain(command_line);
  nanochat::cli::add_sft(command_line);
  nanochat::cli::add_rl(command_line);
  nanochat::cli::add_run(command_line);
  nanochat::cli::add_launch(command_line);
  nanochat::cli::add_eval(command_line);
  nanochat::cli::add_report(command_line);
  nanochat::cli::add_infer(command_line);
  nanochat::cli::add_serve(command_line);
  nanochat::cli::add_info(command_line);
  nanochat::cli::add_import(command_line);
  nanochat::cli::add_export(command_line);
  nanochat::cli::add_bench(command_line);
  return command_line.main(argc, argv);
}
