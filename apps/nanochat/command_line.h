#pragma once
// The command line: subcommands built on OptionList, parsed by CLI11. Each subcommand lives in a file of its own that
// offers one function `void add_NAME(CommandLine&)` (commands.h); main.cpp calls them all.
//
// One parse: flags > environment (NANOCHAT_*) > --config file.json > defaults. Results go to standard output, all
// else to standard error. Not thread-safe; one command a process.

#include <concepts>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
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
  // held by the run function's shared_ptr. Throws std::logic_error for a name that is taken.
  Option& option(std::string name, OptionField field, std::string help);
  template <class T>
    requires std::constructible_from<OptionField, T*>
  Option& option(std::string name, T& field, std::string help) {
    return option(std::move(name), OptionField(&field), std::move(help));
  }
  // The option may also be given as a positional argument, in the order of these calls; a list only as the last.
  Subcommand& positional(const std::string& option_name, bool required = false);
  // Must be set by flag, environment or file; otherwise a ConfigError.
  Subcommand& required(const std::string& option_name);
  // With this option set, nothing is required.
  Subcommand& unless(const std::string& option_name);
  // Called with the parsed options. Throw nanochat::Error; the return value is the exit code.
  Subcommand& run(std::function<ExitCode(Context&)> function);

  const std::string& path() const { return path_; }  // "tokenizer train"
  OptionList& options() { return options_; }

 private:
  friend class CommandLine;
  const Option& known(const std::string& option_name) const;
  std::string usage() const;
  std::string help() const;
  std::string markdown() const;
  // Takes the words after the path. False when --help is among them, and nothing was set.
  bool parse(const std::vector<std::string>& words);
  // The words that belong to no flag, by the positional option they are for.
  using Assigned = std::map<std::string, std::vector<std::string>>;
  Assigned assign(const std::vector<std::string>& words, const std::vector<std::string>& known_flags) const;
  std::string memory_advice() const;

  std::string path_, summary_, example_;
  OptionList options_;
  std::size_t common_count_ = 0;  // that many at the front of options_ are those of every command
  std::vector<std::string> positionals_;
  std::vector<std::string> required_;
  std::string unless_;
  std::function<ExitCode(Context&)> run_;
};

class CommandLine {
 public:
  CommandLine();
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // `path` is one or two words; the first word of a two-word path is a group, described by group().
  Subcommand& add(std::string path, std::string summary, std::string example);
  void group(std::string name, std::string summary);

  // Parses and runs. Every command also gets --config FILE, --quiet, --json, --log-level, --log-file, --log-format
  // and --help. Errors become one line on standard error and an exit code; std::bad_alloc and c10 out-of-memory
  // errors included.
  int main(int argc, const char* const* argv);

  // The command that these words begin with; nullptr: none.
  Subcommand* find_command(const std::vector<std::string>& words) const;

  // docs/cli.md: every command with its summary, example and a table of options. A test keeps the file equal to it.
  std::string markdown() const;

 private:
  struct Common;  // the fields behind the options of every command
  ExitCode dispatch(const std::vector<std::string>& words);
  ExitCode run(Subcommand& command, const std::vector<std::string>& words);
  Subcommand* find(const std::string& path) const;
  bool is_group(const std::string& name) const;
  std::vector<std::string> names_in(const std::string& group) const;  // empty: the first words of all commands
  std::string help(const std::string& group) const;
  ExitCode report(ExitCode code, const std::string& message) const;

  std::unique_ptr<Common> common_;
  std::vector<std::unique_ptr<Subcommand>> commands_;
  std::vector<std::pair<std::string, std::string>> groups_;
  const Subcommand* running_ = nullptr;
};

}  // namespace nanochat::cli
