#include "core/terminal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

class TerminalTest : public ::testing::Test {
 protected:
  TerminalTest() : controller_(::posix_openpt(O_RDWR | O_NOCTTY)) {
    if (controller_ >= 0 && ::grantpt(controller_) == 0 && ::unlockpt(controller_) == 0) {
      fd_ = ::open(::ptsname(controller_), O_RDWR | O_NOCTTY);
    }
    ::unsetenv("NO_COLOR");
    ::setenv("TERM", "xterm-256color", 1);
  }
  ~TerminalTest() override {
    if (fd_ >= 0) ::close(fd_);
    if (controller_ >= 0) ::close(controller_);
    ::unsetenv("NO_COLOR");
  }
  void SetUp() override {
    if (fd_ < 0) GTEST_SKIP() << "needs a pseudo-terminal";
  }

  int controller_ = -1, fd_ = -1;
};

TEST_F(TerminalTest, HasColors) {
  EXPECT_TRUE(is_terminal(fd_));
  EXPECT_TRUE(wants_color(fd_));
}

TEST_F(TerminalTest, HasNoneWithNoColor) {
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_TRUE(is_terminal(fd_)) << "NO_COLOR says nothing about moving the cursor";
  EXPECT_FALSE(wants_color(fd_));
  ::setenv("NO_COLOR", "0", 1);
  EXPECT_FALSE(wants_color(fd_)) << "any value counts";
  ::setenv("NO_COLOR", "", 1);
  EXPECT_TRUE(wants_color(fd_)) << "an empty one does not";
}

TEST_F(TerminalTest, IsNoneWhenDumb) {
  ::setenv("TERM", "dumb", 1);
  EXPECT_FALSE(is_terminal(fd_));
  EXPECT_FALSE(wants_color(fd_));
}

TEST_F(TerminalTest, IsNoFile) {
  const int file = ::open("/dev/null", O_WRONLY);
  EXPECT_FALSE(is_terminal(file));
  EXPECT_FALSE(wants_color(file));
  ::close(file);
}

}  // namespace
}  // namespace nanochat
