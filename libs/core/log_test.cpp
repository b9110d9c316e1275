#include "core/log.h"

#include <unistd.h>

#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::CaptureStdout;
using ::testing::internal::GetCapturedStderr;
using ::testing::internal::GetCapturedStdout;

class LogTest : public ::testing::Test {
 protected:
  void TearDown() override { configure_logging({}); }
};

TEST_F(LogTest, ParsesLevelsAndNamesThemAll) {
  EXPECT_EQ(parse_log_level("trace"), LogLevel::kTrace);
  EXPECT_EQ(parse_log_level("off"), LogLevel::kOff);
  try {
    parse_log_level("loud");
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("found \"loud\", expected trace, debug, info, warn, error or off"));
  }
}

TEST_F(LogTest, WritesToStandardErrorOnlyFromItsLevelUp) {
  CaptureStdout();
  CaptureStderr();
  configure_logging({.level = LogLevel::kWarn});
  log_debug("one {}", 1);
  log_info("two {}", 2);
  log_warn("three {}", 3);
  log_error("four {}", 4);
  log_message(LogLevel::kOff, "never");
  EXPECT_EQ(GetCapturedStdout(), "");
  const std::string text = GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("warning three 3\n"));
  EXPECT_THAT(text, HasSubstr("error four 4\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_FALSE(log_enabled(LogLevel::kInfo));
  EXPECT_TRUE(log_enabled(LogLevel::kWarn));
  EXPECT_FALSE(log_enabled(LogLevel::kOff));
}

TEST_F(LogTest, JsonLinesHoldAnyText) {
  const testing::TemporaryDirectory folder;
  CaptureStderr();
  configure_logging({.level = LogLevel::kDebug, .file = folder / "log", .json = true});
  log_debug("quote \" newline\n and \xff {}", "{}");
  log_info("second");
  const std::string on_terminal = GetCapturedStderr();
  std::istringstream lines(read_file(folder / "log"));
  EXPECT_EQ(lines.str(), on_terminal);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const auto first = nlohmann::json::parse(line);
  EXPECT_EQ(first["level"], "debug");
  EXPECT_EQ(first["message"], "quote \" newline\n and \xef\xbf\xbd {}");
  EXPECT_THAT(first["time"].get<std::string>(), ::testing::MatchesRegex("....-..-..T..:..:..\\....Z"));
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(nlohmann::json::parse(line)["message"], "second");
  EXPECT_FALSE(std::getline(lines, line));
}

TEST_F(LogTest, FilesAreAppendedToAndAdded) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "log", "before\n");
  CaptureStderr();
  configure_logging({.file = folder / "log"});
  log_info("one");
  add_log_file(folder / "run.txt");
  log_info("two");
  configure_logging({});
  log_info("three");
  EXPECT_THAT(GetCapturedStderr(), HasSubstr("info three\n"));
  const std::string log = read_file(folder / "log");
  EXPECT_THAT(log, ::testing::StartsWith("before\n"));
  EXPECT_THAT(log, HasSubstr("info one\n"));
  EXPECT_THAT(log, HasSubstr("info two\n"));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("three")));
  EXPECT_THAT(read_file(folder / "run.txt"), ::testing::EndsWith("info two\n"));
}

TEST_F(LogTest, AFileThatCannotBeOpenedIsAnError) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "file", "");
  EXPECT_THROW(configure_logging({.file = folder / "file" / "log"}), IoError);
  EXPECT_THROW(add_log_file(folder.path()), IoError);
}

TEST_F(LogTest, LinesOfSeveralThreadsStayWhole) {
  const testing::TemporaryDirectory folder;
  CaptureStderr();
  configure_logging({.file = folder / "log", .json = true});
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([t] {
        for (int i = 0; i < 50; ++i) log_info("thread {} line {}", t, i);
      });
    }
  }
  GetCapturedStderr();
  std::istringstream lines(read_file(folder / "log"));
  std::string line;
  int count = 0;
  while (std::getline(lines, line)) {
    ASSERT_TRUE(nlohmann::json::accept(line)) << line;
    ++count;
  }
  EXPECT_EQ(count, 200);
}

}  // namespace
}  // namespace nanochat
