// What the command line says of itself: --help, the list of commands, docs/cli.md.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "command_line.h"

namespace nanochat::cli {
namespace {

constexpr std::size_t kWidth = 100;
constexpr std::size_t kColumn = 34;  // where the text of an option begins

// Appends `text` in lines of at most kWidth characters that begin at kColumn; the cursor stands at `position`.
void append_wrapped(std::string& out, std::string_view text, std::size_t position) {
  if (position + 2 > kColumn) {
    out += '\n';
    position = 0;
  }
  out.append(kColumn - position, ' ');
  position = kColumn;
  bool first = true;
  while (!text.empty()) {
    const std::size_t space = std::min(text.find(' '), text.size());
    if (!first && position + 1 + space > kWidth) {
      out += '\n';
      out.append(kColumn, ' ');
      position = kColumn;
    } else if (!first) {
      out += ' ';
      ++position;
    }
    out += text.substr(0, space);
    position += space;
    first = false;
    text.remove_prefix(std::min(space + 1, text.size()));
  }
  out += '\n';
}

std::string signature(const Option& option) {
  if (option.is_flag()) return option.flag() + ", --no-" + option.flag().substr(2);
  return option.flag() + " " + option.type_name();
}

// An earlier name of the option, in parentheses.
std::string former(const Option& option) {
  return option.former_flag().empty() ? "" : " (also `" + option.former_flag() + "`)";
}

std::string joined_choices(const Option& option) {
  std::string text;
  for (const std::string& choice : option.choices()) text += (text.empty() ? "" : "|") + choice;
  return text;
}

std::string upper(std::string text) {
  for (char& c : text) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return text;
}

// The bar separates cells of a table.
std::string cell(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

void append_option(std::string& out, const Option& option, bool required) {
  const std::string left = "  " + signature(option);
  std::string text = option.help() + former(option);
  if (!option.choices().empty()) text += " [" + joined_choices(option) + "]";
  if (required) {
    text += " [required]";
  } else if (!option.default_text().empty()) {
    text += " [default: " + option.default_text() + "]";
  }
  out += left;
  append_wrapped(out, text, left.size());
}

void append_row(std::string& out, const Option& option, bool required) {
  std::string text = cell(option.help() + former(option));
  if (!option.choices().empty()) text += " (`" + cell(joined_choices(option)) + "`)";
  const std::string preset = option.default_text().empty() ? "" : "`" + cell(option.default_text()) + "`";
  out += fmt::format("| `{}` | {} | {} |\n", cell(signature(option)), required ? "required" : preset, text);
}

constexpr std::string_view kTableHead = "| option | default | meaning |\n|---|---|---|\n";
constexpr std::string_view kConfigSignature = "--config FILE";
constexpr std::string_view kConfigHelp =
    "JSON file of options, such as {\"depth\": 4}. Environment variables and flags take precedence.";

}  // namespace

std::string Subcommand::usage() const {
  std::string text = "nanochat " + path_ + " [options]";
  for (const std::string& name : positionals_) {
    const bool needed = std::find(required_.begin(), required_.end(), name) != required_.end();
    std::string word = upper(name);
    if (known(name).is_list()) word += "...";
    text += needed ? " " + word : " [" + word + "]";
  }
  return text;
}

std::string Subcommand::help() const {
  std::string text = fmt::format("{}\n\nUsage: {}\n\nOptions:\n", summary_, usage());
  const auto append_range = [&](std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const Option& option = options_.all()[i];
      append_option(text, option, std::find(required_.begin(), required_.end(), option.name()) != required_.end());
    }
  };
  append_range(common_count_, options_.all().size());
  text += "\nOptions of every command:\n  " + std::string(kConfigSignature);
  append_wrapped(text, kConfigHelp, 2 + kConfigSignature.size());
  append_range(0, common_count_);
  text += "  -h, --help";
  append_wrapped(text, "Print this help.", 12);
  text += "\nExample:\n  " + example_ + "\n";
  return text;
}

std::string Subcommand::markdown() const {
  std::string text = fmt::format("## nanochat {}\n\n{}\n\n```\n{}\n```\n\n", path_, summary_, usage());
  text += "Example:\n\n```sh\n" + example_ + "\n```\n\n";
  if (options_.all().size() == common_count_) return text;
  text += kTableHead;
  for (std::size_t i = common_count_; i < options_.all().size(); ++i) {
    const Option& option = options_.all()[i];
    append_row(text, option, std::find(required_.begin(), required_.end(), option.name()) != required_.end());
  }
  return text + "\n";
}

std::string CommandLine::help(const std::string& group) const {
  std::string text;
  if (group.empty()) {
    text =
        "nanochat: train, evaluate and serve a chat model, from raw text on, with one program.\n\n"
        "Usage: nanochat COMMAND [options]\n\nCommands:\n";
  } else {
    for (const auto& [name, summary] : groups_) {
      if (name == group) text = summary + "\n\n";
    }
    text += "Usage: nanochat " + group + " COMMAND [options]\n\nCommands:\n";
  }
  for (const auto& command : commands_) {
    if (!group.empty() && !command->path().starts_with(group + " ")) continue;
    const std::string left = "  " + command->path();
    text += left;
    append_wrapped(text, command->summary_, left.size());
  }
  return text +
         "\n`nanochat COMMAND --help` describes the options of a command."
         " `nanochat --version` prints the version.\n";
}

std::string CommandLine::markdown() const {
  std::string text =
      "# Command line\n\n"
      "This page is generated by `nanochat help --markdown`. A test checks that it is up to date.\n\n"
      "The option `--some-name` can also be set with the environment variable `NANOCHAT_SOME_NAME` or with the key\n"
      "`some_name` of the JSON object in `--config FILE`. Flags take precedence over environment variables,\n"
      "environment variables over the file, and the file over defaults. An empty variable counts as not set. A list\n"
      "in an environment variable is a JSON array or items separated by commas. An unknown option or key is an error;\n"
      "the message suggests the nearest known name.\n\n"
      "Results go to standard output. Progress, logs and errors go to standard error.\n\n"
      "| exit code | meaning |\n|---|---|\n"
      "| 0 | success |\n"
      "| 1 | any other error, including out of memory |\n"
      "| 2 | error in usage or configuration |\n"
      "| 3 | error in data or tokenizer files |\n"
      "| 4 | error in a checkpoint |\n"
      "| 5 | partly done, for example interrupted or with skipped rows |\n"
      "| 130 | interrupted twice (the first SIGINT, SIGTERM or SIGHUP asks to save and stop) |\n\n"
      "## Options of every command\n\n";
  text += kTableHead;
  text += fmt::format("| `{}` |  | {} |\n", kConfigSignature, kConfigHelp);
  if (!commands_.empty()) {
    for (std::size_t i = 0; i < commands_.front()->common_count_; ++i) {
      append_row(text, commands_.front()->options_.all()[i], false);
    }
  }
  text += "| `-h, --help` |  | Print the help of the command. |\n\n";
  for (const auto& command : commands_) text += command->markdown();
  text.pop_back();  // one newline at the end of the file
  return text;
}

}  // namespace nanochat::cli
