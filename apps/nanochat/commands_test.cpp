// What holds for the options of every command.
#include "commands.h"

#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "command_line.h"

namespace nanochat::cli {
namespace {

using ::testing::HasSubstr;

struct NumericOption {
  std::vector<std::string> command;
  std::string flag;
};

// From the reference: "## nanochat data prepare", and below it rows such as "| `--workers INT` | `0` | … |".
std::vector<NumericOption> numeric_options(const CommandLine& commands) {
  constexpr std::string_view kHeading = "## nanochat ", kRow = "| `--";
  std::istringstream reference(commands.markdown());
  std::vector<NumericOption> found;
  std::vector<std::string> command;
  for (std::string line; std::getline(reference, line);) {
    if (line.starts_with(kHeading)) {
      std::istringstream words(line.substr(kHeading.size()));
      command.clear();
      for (std::string word; words >> word;) command.push_back(word);
    } else if (line.starts_with(kRow)) {
      const std::string name = line.substr(3, line.find('`', 3) - 3);
      const std::size_t space = name.find(' ');
      if (space != std::string::npos && (name.substr(space) == " INT" || name.substr(space) == " FLOAT")) {
        found.push_back({command, name.substr(0, space)});
      }
    }
  }
  return found;
}

// Negative numbers mean something for few options, and those say which: -1. Anything else would run with nonsense.
TEST(Commands, RefuseNegativeNumbersThatMeanNothing) {
  CommandLine commands;
  add_every_command(commands);
  const std::vector<NumericOption> options = numeric_options(commands);
  ASSERT_GT(options.size(), 150U);
  for (const NumericOption& option : options) {
    std::vector<std::string> words = {"nanochat"};
    words.insert(words.end(), option.command.begin(), option.command.end());
    words.push_back(option.flag + "=-7");
    std::vector<const char*> argv;
    for (const std::string& word : words) argv.push_back(word.c_str());
    ::testing::internal::CaptureStderr();
    const int code = commands.main(static_cast<int>(argv.size()), argv.data());
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, 2) << words[1] << " " << words.back();
    EXPECT_THAT(said, HasSubstr(option.flag + ": found -7, expected ")) << words[1];
  }
}

}  // namespace
}  // namespace nanochat::cli
