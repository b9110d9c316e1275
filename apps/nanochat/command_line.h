#pragma once
// The command line: subcommands built on OptionList, parsed by CLI11. Each subcommand lives in a file of its own that
// offers one function `void add_NAME(CommandLine&)`; main.cpp calls them all.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/errors.h"
#include "core/options.h"
#include "core/progress.h"

namespace nanochat::cli {

// What a running command is given.
struct Context {
  bool quiet = false;  // no progress, warnings and errors only
  bool json = false;   // machine-readable standard output
  std::shared_ptr<ProgressReporter> progress;  // to standard error; silent when quiet
};

class Subcommand {
 public:
  Subcommand(std::string path, std::string summary, std::string example);

  // An option of this command (see core/options.h). The field must outlive the command line: bind members of a struct
  // held by the run function's shared_ptr.
  Option& option(std::string name, OptionField field, std::string help);
  // The option may also be given as a positional argument, in the order of these calls.
  Subcommand& positional(const std::string& option_name, bool required = false);
  // Must be set by flag, environment or file; otherwise a ConfigError.
  Subcommand& required(const std::string& option_name);
  // Called with the parsed options. Throw nanochat::Error; the return value is the exit code.
  Subcommand& run(std::function<ExitCode(Context&)> function);

  const std::string& path() const { return path_; }  // "tokenizer train"
  OptionList& options() { return options_; }

 private:
  friend class CommandLine;
  std::string path_, summary_, example_;
  OptionList options_;
  std::vector<std::pair<std::string, bool>> positionals_;
  std::vector<std::string> required_;
  std::function<ExitCode(Context&)> run_;
};

class CommandLine {
 public:
  // `path` is one or two words; the group of a two-word path is created on first use with `group_summary`.
  Subcommand& add(std::string path, std::string summary, std::string example);
  void group(std::string name, std::string summary);

  // Parses and runs. Every command also gets --config FILE, --quiet, --json, --log-level, --log-file, --log-format and
  // --help. Errors become one line on standard error and an exit code; std::bad_alloc and c10 out-of-memory errors
  // included.
  int main(int argc, const char* const* argv);

  // docs/cli.md: every command with its summary, example and a table of options. A test keeps the file equal to it.
  std::string markdown() const;

 private:
  std::vector<std::unique_ptr<Subcommand>> commands_;
  std::vector<std::pair<std::string, std::string>> groups_;
};

}  // namespace nanochat::cli
