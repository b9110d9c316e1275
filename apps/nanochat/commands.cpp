#include "commands.h"

namespace nanochat::cli {

void add_every_command(CommandLine& command_line) {
  add_tokenizer(command_line);
  add_data(command_line);
  add_pretrain(command_line);
  add_midtrain(command_line);
  add_sft(command_line);
  add_rl(command_line);
  add_run(command_line);
  add_launch(command_line);
  add_eval(command_line);
  add_report(command_line);
  add_infer(command_line);
  add_serve(command_line);
  add_info(command_line);
  add_import(command_line);
  add_export(command_line);
  add_bench(command_line);
}

}  // namespace nanochat::cli
