#pragma once
// The commands of the program, one function and one file each: parsing, wiring and printing, nothing else.

namespace nanochat::cli {

class CommandLine;

void add_tokenizer(CommandLine& command_line);  // tokenizer train | info | encode | decode, and the next
void add_tokenizer_eval(CommandLine& command_line);  // tokenizer eval
void add_data(CommandLine& command_line);       // data prepare | toy, and the next
void add_data_inspect(CommandLine& command_line);   // data inspect | contamination
void add_data_render(CommandLine& command_line);    // data render
void add_data_validate(CommandLine& command_line);  // data validate
void add_download(CommandLine& command_line);   // data download; add_data calls it
void add_pretrain(CommandLine& command_line);   // pretrain
void add_midtrain(CommandLine& command_line);   // midtrain
void add_sft(CommandLine& command_line);        // sft
void add_rl(CommandLine& command_line);         // rl
void add_launch(CommandLine& command_line);     // launch
void add_run(CommandLine& command_line);        // run
void add_eval(CommandLine& command_line);       // eval
void add_report(CommandLine& command_line);     // report
void add_infer(CommandLine& command_line);      // infer
void add_serve(CommandLine& command_line);      // serve
void add_info(CommandLine& command_line);       // info
void add_import(CommandLine& command_line);     // import
void add_export(CommandLine& command_line);     // export
void add_bench(CommandLine& command_line);      // bench train | infer, and the next
void add_bench_comm(CommandLine& command_line);   // bench comm; add_bench calls it
void add_bench_serve(CommandLine& command_line);  // bench serve; add_bench calls it

void add_every_command(CommandLine& command_line);

}  // namespace nanochat::cli
