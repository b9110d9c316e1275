// What holds for every command of the program, whichever there are.
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/testing.h"
#include "program.h"

namespace nanochat::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// The commands by the headings of the reference: "## nanochat tokenizer train".
std::vector<std::vector<std::string>> commands() {
  constexpr std::string_view kHeading = "## nanochat ";
  std::istringstream lines(run_program({"help", "--markdown"}).out);
  std::vector<std::vector<std::string>> found;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(kHeading)) found.push_back(words_of(line.substr(kHeading.size())));
  }
  return found;
}

std::vector<std::string> with(std::vector<std::string> command, const std::vector<std::string>& more) {
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

// One clear line on standard error, nothing on standard output.
void expect_error_line(const ProgramResult& result, int exit_code) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_THAT(result.err, StartsWith("nanochat"));
  EXPECT_THAT(result.err, EndsWith("\n"));
}

TEST(CliContract, ReferenceIsWhatTheProgramSays) {
  const std::string reference = read_file(NANOCHAT_CLI_REFERENCE);
  const std::string said = run_program({"help", "--markdown"}).out;
  EXPECT_TRUE(reference == said) << "docs/cli.md is out of date; renew it with: nanochat help --markdown > docs/cli.md";
}

TEST(CliContract, AllCommandsAreThere) {
  std::vector<std::string> names;
  for (const auto& command : commands()) {
    names.push_back(command.size() == 1 ? command[0] : command[0] + " " + command[1]);
  }
  for (const char* expected :
       {"tokenizer train", "tokenizer info", "tokenizer encode", "tokenizer decode", "data download", "data prepare",
        "data toy", "pretrain", "eval", "report", "infer", "info", "import", "export", "bench train", "bench infer"}) {
    EXPECT_THAT(names, ::testing::Contains(expected));
  }
}

TEST(CliContract, EveryCommandHasHelpWithItsExample) {
  for (const auto& command : commands()) {
    std::string name;
    for (const std::string& word : command) name += " " + word;
    SCOPED_TRACE(name);
    const ProgramResult help = run_program(with(command, {"--help"}));
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_EQ(help.err, "");
    EXPECT_THAT(help.out, HasSubstr("\nUsage: nanochat" + name + " [options]"));
    EXPECT_THAT(help.out, HasSubstr("\nExample:\n"));
    EXPECT_THAT(help.out, HasSubstr("nanochat" + name + " "));
    EXPECT_THAT(help.out, HasSubstr("  --config FILE"));
    EXPECT_THAT(help.out, HasSubstr("  --quiet, --no-quiet"));
  }
}

TEST(CliContract, EveryCommandRefusesUnknownOptionsAndKeys) {
  const TemporaryDirectory folder;
  write_text(folder / "unknown.json", R"({"quite": true})");
  for (const auto& command : commands()) {
    SCOPED_TRACE(command.back());
    const ProgramResult option = run_program(with(command, {"--quite"}));
    expect_error_line(option, 2);
    EXPECT_THAT(option.err, EndsWith("unknown option --quite, did you mean \"--quiet\"?\n"));

    const ProgramResult key = run_program(with(command, {"--config", folder / "unknown.json"}));
    expect_error_line(key, 2);
    EXPECT_THAT(key.err, HasSubstr("unknown.json: unknown key \"quite\", did you mean \"quiet\"?"));
  }
}

TEST(CliContract, WrongConfigurationNamesItsPlace) {
  const TemporaryDirectory folder;
  write_text(folder / "type.json", R"({"quiet": "yes"})");
  write_text(folder / "broken.json", "{\"quiet\": tru");
  const ProgramResult type = run_program({"pretrain", "--config", folder / "type.json"});
  expect_error_line(type, 2);
  EXPECT_THAT(type.err, HasSubstr("\"quiet\": found \"yes\", expected true or false"));

  const ProgramResult broken = run_program({"pretrain", "--config", folder / "broken.json"});
  expect_error_line(broken, 2);
  EXPECT_THAT(broken.err, HasSubstr("broken.json:1:"));

  const ProgramResult absent = run_program({"pretrain", "--config", folder / "absent.json"});
  expect_error_line(absent, 2);
  EXPECT_THAT(absent.err, HasSubstr("no such file"));

  const ProgramResult variable = run_program({"pretrain"}, "", {{"NANOCHAT_LOG_LEVEL", "loud"}});
  expect_error_line(variable, 2);
  EXPECT_THAT(variable.err, HasSubstr("NANOCHAT_LOG_LEVEL: found \"loud\", expected one of trace, debug"));
}

TEST(CliContract, AnUnknownCommandIsAnsweredWithTheNearest) {
  const ProgramResult command = run_program({"pretrian"});
  expect_error_line(command, 2);
  EXPECT_THAT(command.err, HasSubstr("did you mean \"pretrain\"?"));
  const ProgramResult inner = run_program({"tokenizer", "encoed"});
  expect_error_line(inner, 2);
  EXPECT_THAT(inner.err, HasSubstr("did you mean \"encode\"?"));
}

TEST(CliContract, AloneItListsTheCommands) {
  const ProgramResult alone = run_program({});
  EXPECT_EQ(alone.exit_code, 2);
  EXPECT_EQ(alone.err, "");
  EXPECT_THAT(alone.out, HasSubstr("  pretrain "));
  const ProgramResult help = run_program({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_EQ(help.out, alone.out);
  EXPECT_THAT(run_program({"--version"}).out, MatchesRegex("nanochat [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(CliContract, AFullDiskBehindStandardOutputIsAnError) {
  // /dev/full refuses every write; the program must not report success for output that nobody got.
  const int status = std::system(("\"" + program_path() + "\" help --markdown > /dev/full 2> /dev/null").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

}  // namespace
}  // namespace nanochat::testing
