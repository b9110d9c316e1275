#include "command_line.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <map>
#include <new>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include "core/log.h"

namespace nanochat::cli {
namespace {

bool contains(const std::vector<std::string>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

// As many words as a flag may take: below the size from which CLI11 would take "[a]" for a list of its own.
constexpr int kManyWords = 1 << 20;

// CLI11 takes words from the back, and the word after "--name=" for its value, where an empty one was given.
std::vector<std::string> for_cli11(const std::vector<std::string>& words) {
  std::vector<std::string> reversed;
  for (auto word = words.rbegin(); word != words.rend(); ++word) {
    const bool empty_value = word->starts_with("--") && word->find('=') == word->size() - 1;
    if (empty_value) reversed.emplace_back();
    reversed.push_back(empty_value ? word->substr(0, word->size() - 1) : *word);
  }
  return reversed;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& known) {
  const std::string close = nearest(word, known);
  return close.empty() ? "" : ", did you mean \"" + close + "\"?";
}

}  // namespace

struct CommandLine::Common {
  bool quiet = false;
  bool json = false;
  std::string log_level = "info";
  std::filesystem::path log_file;
  std::string log_format = "text";
};

Subcommand::Subcommand(std::string path, std::string summary, std::string example)
    : path_(std::move(path)), summary_(std::move(summary)), example_(std::move(example)) {}

Option& Subcommand::option(std::string name, OptionField field, std::string help) {
  if (options_.find(name) != nullptr || name == "config" || name == "help") {
    throw std::logic_error(path_ + ": option " + name + " is declared twice");
  }
  return options_.add(std::move(name), field, std::move(help));
}

const Option& Subcommand::known(const std::string& option_name) const {
  for (const Option& option : options_.all()) {
    if (option.name() == option_name) return option;
  }
  throw std::logic_error(path_ + ": no option " + option_name);
}

Subcommand& Subcommand::positional(const std::string& option_name, bool is_required) {
  if (!positionals_.empty() && known(positionals_.back()).is_list()) {
    throw std::logic_error(path_ + ": " + option_name + " follows a positional list");
  }
  positionals_.push_back(known(option_name).name());
  return is_required ? required(option_name) : *this;
}

Subcommand& Subcommand::required(const std::string& option_name) {
  required_.push_back(known(option_name).name());
  return *this;
}

Subcommand& Subcommand::unless(const std::string& option_name) {
  unless_ = known(option_name).name();
  return *this;
}

Subcommand& Subcommand::run(std::function<ExitCode(Context&)> function) {
  run_ = std::move(function);
  return *this;
}

Subcommand::Assigned Subcommand::assign(const std::vector<std::string>& words,
                                        const std::vector<std::string>& known_flags) const {
  Assigned assigned;
  std::size_t next = 0;
  bool after_mark = false;  // behind "--", a word that begins with a dash is an argument
  for (const std::string& word : words) {
    if (!after_mark && word == "--") {
      after_mark = true;
      continue;
    }
    if (!after_mark && word.size() > 1 && word.starts_with('-')) {
      const std::string flag = word.substr(0, word.find('='));
      const std::string hint = did_you_mean(flag, known_flags);
      throw ConfigError("unknown option " + flag + (hint.empty() ? "; --help lists the options" : hint));
    }
    if (next == positionals_.size()) {
      throw ConfigError("unexpected argument \"" + word + "\"; usage: " + usage());
    }
    assigned[positionals_[next]].push_back(word);
    if (!known(positionals_[next]).is_list()) ++next;
  }
  return assigned;
}

bool Subcommand::parse(const std::vector<std::string>& words) {
  CLI::App app;
  app.set_help_flag();  // --help is ours: CLI11 would format it its own way
  app.allow_extras();   // arguments, and unknown flags, whose nearest is to be named
  CLI::Option* help = app.add_flag("-h,--help");
  CLI::Option* config = app.add_option("--config");
  config->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);

  std::map<std::string, CLI::Option*> flags;
  std::vector<std::string> known_flags = {"--config", "--help"};
  for (const Option& option : options_.all()) {
    const std::string flag = option.flag();
    known_flags.push_back(flag);
    CLI::Option*& added = flags[option.name()];
    if (option.is_flag()) {
      known_flags.push_back("--no-" + flag.substr(2));
      added = app.add_flag(flag + ",!" + known_flags.back());
    } else {
      added = app.add_option(option.former_flag().empty() ? flag : flag + "," + option.former_flag());
      // "--names a,b FILE" leaves FILE alone.
      if (option.is_list() && !option.is_comma_separated()) added->expected(1, kManyWords);
    }
    added->multi_option_policy(option.is_list() ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
  }

  try {
    app.parse(for_cli11(words));
  } catch (const CLI::ParseError& error) {
    throw ConfigError(one_line(error.what()));
  }
  if (help->count() > 0) return false;
  const Assigned positionals = assign(app.remaining(), known_flags);

  if (config->count() > 0) options_.apply_file(config->results().back());
  options_.apply_environment();
  for (Option& option : options_.all()) {
    const CLI::Option* flag = flags[option.name()];
    const auto positional = positionals.find(option.name());
    if (flag->count() > 0 && positional != positionals.end()) {
      throw ConfigError(option.flag() + ": given as an option and as an argument (\"" + positional->second.front() +
                        "\"), expected one of the two");
    }
    std::vector<std::string> values = positional != positionals.end() ? positional->second : flag->results();
    if (values.empty()) continue;
    if (!option.is_list()) values.erase(values.begin(), values.end() - 1);  // given twice: the last counts
    option.set_text(values, option.flag(), "flag");
  }
  const auto is_set = [](const nlohmann::json& value) { return value.is_boolean() ? value.get<bool>() : value != ""; };
  const bool released = !unless_.empty() && is_set(known(unless_).value());
  for (const std::string& name : released ? std::vector<std::string>() : required_) {
    const Option& option = known(name);
    if (option.source() == "default") {
      throw ConfigError(option.flag() + ": is required (or " + option.environment() + ", or \"" + name +
                        "\" in a --config file); usage: " + usage());
    }
  }
  return true;
}

std::string Subcommand::memory_advice() const {
  std::string flags;
  for (const char* name : {"device_batch_size", "sequence_len", "depth", "vocab_size", "max_tokens", "workers"}) {
    for (const Option& option : options_.all()) {
      if (option.name() == name) flags += (flags.empty() ? "" : ", ") + option.flag();
    }
  }
  return flags.empty() ? "close other programs or give smaller input" : "lower " + flags;
}

CommandLine::CommandLine() : common_(std::make_unique<Common>()) {}
CommandLine::~CommandLine() = default;

Subcommand& CommandLine::add(std::string path, std::string summary, std::string example) {
  if (find(path) != nullptr) throw std::logic_error("command " + path + " is declared twice");
  commands_.push_back(std::make_unique<Subcommand>(std::move(path), std::move(summary), std::move(example)));
  Subcommand& command = *commands_.back();
  command.option("quiet", &common_->quiet, "Print no progress, only warnings and errors.").not_in_resolved();
  command.option("json", &common_->json, "Print results on standard output as JSON.").not_in_resolved();
  command.option("log_level", &common_->log_level, "Lowest severity of messages to log.")
      .one_of({"trace", "debug", "info", "warn", "error", "off"})
      .not_in_resolved();
  command.option("log_file", &common_->log_file, "Also append log messages to this file.").not_in_resolved();
  command.option("log_format", &common_->log_format, "Format of log messages: plain text, or one JSON object per line.")
      .one_of({"text", "json"})
      .not_in_resolved();
  command.common_count_ = command.options_.all().size();
  return command;
}

void CommandLine::group(std::string name, std::string summary) { groups_.emplace_back(std::move(name), std::move(summary)); }

Subcommand* CommandLine::find(const std::string& path) const {
  for (const auto& command : commands_) {
    if (command->path() == path) return command.get();
  }
  return nullptr;
}

bool CommandLine::is_group(const std::string& name) const {
  return std::any_of(commands_.begin(), commands_.end(),
                     [&](const auto& command) { return command->path().starts_with(name + " "); });
}

Subcommand* CommandLine::find_command(const std::vector<std::string>& words) const {
  if (words.empty()) return nullptr;
  if (Subcommand* command = find(words[0])) return command;
  return words.size() > 1 ? find(words[0] + " " + words[1]) : nullptr;
}

std::vector<std::string> CommandLine::names_in(const std::string& group) const {
  std::vector<std::string> names;
  const std::string prefix = group.empty() ? "" : group + " ";
  for (const auto& command : commands_) {
    if (!command->path().starts_with(prefix)) continue;
    const std::string rest = command->path().substr(prefix.size());
    const std::string word = rest.substr(0, rest.find(' '));
    if (!contains(names, word)) names.push_back(word);
  }
  return names;
}

ExitCode CommandLine::dispatch(const std::vector<std::string>& words) {
  const auto rest = [&](std::size_t count) {
    return std::vector<std::string>(words.begin() + static_cast<std::ptrdiff_t>(count), words.end());
  };
  if (words.empty()) {
    print(help(""));
    return ExitCode::kUsage;
  }
  const std::string& first = words[0];
  if (first == "--version") {
    print("nanochat " NANOCHAT_VERSION "\n");
    return ExitCode::kOk;
  }
  if (first == "--help" || first == "-h") {
    print(help(""));
    return ExitCode::kOk;
  }
  if (first == "help") {  // help [COMMAND...], or --markdown for docs/cli.md
    if (words.size() == 2 && words[1] == "--markdown") {
      print(markdown());
      return ExitCode::kOk;
    }
    std::vector<std::string> asked = rest(1);
    asked.push_back("--help");
    return dispatch(asked);
  }
  if (Subcommand* command = find(first)) return run(*command, rest(1));
  if (is_group(first)) {
    if (words.size() == 1 || words[1] == "--help" || words[1] == "-h") {
      print(help(first));
      return words.size() == 1 ? ExitCode::kUsage : ExitCode::kOk;
    }
    if (Subcommand* command = find(first + " " + words[1])) return run(*command, rest(2));
    const std::string hint = did_you_mean(words[1], names_in(first));
    throw ConfigError("unknown command \"" + first + " " + words[1] + "\"" +
                      (hint.empty() ? "; `nanochat " + first + " --help` lists them" : hint));
  }
  const std::string hint = did_you_mean(first, names_in(""));
  throw ConfigError((first.starts_with('-') ? "unknown option " + first : "unknown command \"" + first + "\"") +
                    (hint.empty() ? "; `nanochat --help` lists the commands" : hint));
}

ExitCode CommandLine::run(Subcommand& command, const std::vector<std::string>& words) {
  running_ = &command;
  if (!command.parse(words)) {
    print(command.help());
    return ExitCode::kOk;
  }
  LogOptions log;
  log.level = parse_log_level(common_->log_level);
  if (common_->quiet && command.known("log_level").source() == "default") log.level = LogLevel::kWarn;
  log.file = common_->log_file;
  log.json = common_->log_format == "json";
  configure_logging(log);

  Context context;
  context.quiet = common_->quiet;
  context.json = common_->json;
  if (context.quiet) {
    context.progress = std::make_shared<SilentProgress>();
  } else {
    context.progress = make_progress_bar(STDERR_FILENO);
  }
  if (!command.run_) throw std::logic_error(command.path() + ": has no run function");
  return command.run_(context);
}

ExitCode CommandLine::report(ExitCode code, const std::string& message) const {
  const std::string line = one_line(message);
  const bool in_log = common_->log_format == "json" || !common_->log_file.empty();
  if (in_log && log_enabled(LogLevel::kError)) {
    log_message(LogLevel::kError, line);
  } else {
    std::fprintf(stderr, "nanochat%s%s: %s\n", running_ == nullptr ? "" : " ",
                 running_ == nullptr ? "" : running_->path().c_str(), line.c_str());
  }
  return code;
}

int CommandLine::main(int argc, const char* const* argv) {
  const auto out_of_memory = [&](const std::string& what) {
    const std::string advice = running_ == nullptr ? "" : "; " + running_->memory_advice();
    return report(ExitCode::kOther, "out of memory" + (what.empty() ? "" : ": " + what) + advice);
  };
  running_ = nullptr;
  ExitCode code = ExitCode::kOther;
  try {
    code = dispatch(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  } catch (const Error& error) {
    code = report(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    code = out_of_memory("");
  } catch (const c10::OutOfMemoryError& error) {
    code = out_of_memory(first_line(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    const std::string message = first_line(error.what_without_backtrace());
    // LibTorch's allocator for the CPU has no exception of its own.
    const bool memory = message.find("can't allocate memory") != std::string::npos;
    code = memory ? out_of_memory(message) : report(ExitCode::kOther, message);
  } catch (const std::system_error& error) {
    // What a thread throws that cannot be started.
    const bool memory = error.code() == std::errc::resource_unavailable_try_again ||
                        error.code() == std::errc::not_enough_memory;
    code = memory ? out_of_memory(error.what()) : report(ExitCode::kOther, error.what());
  } catch (const std::exception& error) {
    // What oneDNN, beneath LibTorch, says when there is no memory left for the code that it makes.
    const bool memory = std::string_view(error.what()) == "could not create a primitive";
    code = memory ? out_of_memory(error.what()) : report(ExitCode::kOther, error.what());
  }
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!written && code == ExitCode::kOk) {
    code = report(ExitCode::kOther, "standard output cannot be written (disk full?)");
  }
  return static_cast<int>(code);
}

}  // namespace nanochat::cli
