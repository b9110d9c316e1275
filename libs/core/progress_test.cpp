#include "core/progress.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/status_line.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

// What a program would show on a terminal of `columns`, read back from the other end of a pseudo-terminal.
class Terminal {
 public:
  explicit Terminal(unsigned short columns) : controller_(::posix_openpt(O_RDWR | O_NOCTTY)) {
    if (controller_ < 0 || ::grantpt(controller_) != 0 || ::unlockpt(controller_) != 0) return;
    fd_ = ::open(::ptsname(controller_), O_RDWR | O_NOCTTY);
    winsize size{};
    size.ws_col = columns;
    ::ioctl(fd_, TIOCSWINSZ, &size);
    ::fcntl(controller_, F_SETFL, O_NONBLOCK);
  }
  ~Terminal() {
    if (fd_ >= 0) ::close(fd_);
    if (controller_ >= 0) ::close(controller_);
  }
  int fd() const { return fd_; }
  std::string shown() const {
    std::string text;
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(controller_, buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<std::size_t>(got));
    }
    return text;
  }

 private:
  int controller_ = -1;
  int fd_ = -1;
};

class File {
 public:
  explicit File(const std::filesystem::path& path) : fd_(::open(path.c_str(), O_WRONLY | O_CREAT, 0600)) {}
  ~File() { ::close(fd_); }
  int fd() const { return fd_; }

 private:
  int fd_;
};

TEST(ProgressTest, PlainLinesWhenNotATerminal) {
  const testing::TemporaryDirectory folder;
  {
    const File file(folder / "out");
    const auto progress = make_progress_bar(file.fd(), 0.0);  // a line for every call
    progress->start("tokenizing", 2000, "documents");
    progress->advance(500);
    progress->note("3.5 MB");
    progress->advance(1500);
    progress->finish();
    progress->finish();  // once is enough
    progress->start("reading", 0, "bytes");
    progress->advance(7);
  }
  const std::string text = read_file(folder / "out");
  EXPECT_THAT(text, HasSubstr("tokenizing  25% 500/2,000 documents | "));
  EXPECT_THAT(text, HasSubstr(" left\n"));
  EXPECT_THAT(text, HasSubstr("| 3.5 MB\n"));
  EXPECT_THAT(text, HasSubstr("tokenizing: 2,000 documents in "));
  EXPECT_THAT(text, HasSubstr("reading 7 bytes"));
  EXPECT_THAT(text, HasSubstr("reading: 7 bytes in "));  // ended by the destructor
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6);
}

TEST(ProgressTest, PlainLinesComeNoFasterThanTheInterval) {
  const testing::TemporaryDirectory folder;
  {
    const File file(folder / "out");
    const auto progress = make_progress_bar(file.fd(), 3600);
    progress->start("x", 1000, "steps");
    for (int i = 0; i < 1000; ++i) progress->advance(1);
    progress->finish();
  }
  const std::string text = read_file(folder / "out");
  EXPECT_THAT(text, ::testing::StartsWith("x: 1,000 steps in "));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(ProgressTest, OneRedrawnLineOnATerminal) {
  const Terminal terminal(60);
  ASSERT_GE(terminal.fd(), 0);
  const auto progress = make_progress_bar(terminal.fd());
  progress->start("training", 4, "steps");
  std::this_thread::sleep_for(std::chrono::milliseconds(150));  // redrawn at most ten times a second
  progress->note("é loss 3.2 and more than fits in a line of sixty characters");
  progress->advance(2);
  status_line::write_above([&] { status_line::write_all(terminal.fd(), "a warning\n"); });
  progress->finish();
  const std::string text = terminal.shown();
  EXPECT_THAT(text, HasSubstr("\r\x1b[Ktraining   0% [------------------------] 0/4 steps"));
  EXPECT_THAT(text, HasSubstr("\r\x1b[Ka warning\r\ntraining   0% ["));  // taken away and drawn again
  EXPECT_THAT(text, HasSubstr("\r\x1b[Ktraining: 2 steps in "));
  EXPECT_THAT(text, EndsWith("\r\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  // No drawn line is wider than the terminal: 59 characters, of which é takes two bytes.
  std::size_t start = 0;
  while ((start = text.find("\x1b[K", start)) != std::string::npos) {
    start += 3;
    EXPECT_LE(std::min(text.find('\r', start), text.size()) - start, 60u);
  }
}

TEST(ProgressTest, PlainLinesOnATerminalThatIsDumb) {
  const Terminal terminal(60);
  ASSERT_GE(terminal.fd(), 0);
  const char* before = ::getenv("TERM");
  const std::string saved = before == nullptr ? "" : before;
  ::setenv("TERM", "dumb", 1);
  const auto progress = make_progress_bar(terminal.fd(), 0.0);
  progress->start("training", 4, "steps");
  progress->advance(4);
  progress->finish();
  before == nullptr ? ::unsetenv("TERM") : ::setenv("TERM", saved.c_str(), 1);
  const std::string text = terminal.shown();
  EXPECT_THAT(text, HasSubstr("training: 4 steps in "));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(ProgressTest, SilentSaysNothing) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  SilentProgress progress;
  ProgressReporter& reporter = progress;
  reporter.start("x", 1, "y");
  reporter.advance(1);
  reporter.note("z");
  reporter.finish();
  EXPECT_EQ(::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr(), "");
}

TEST(ProgressTest, PartsHaveALineEachBelowTheWhole) {
  const Terminal terminal(100);
  if (terminal.fd() < 0) GTEST_SKIP() << "needs a pseudo-terminal";
  const auto progress = make_progress_bar(terminal.fd());
  progress->start("downloading", 0, "B");
  progress->set_total(2000);
  std::this_thread::sleep_for(std::chrono::milliseconds(150));  // longer than from one drawing to the next
  progress->set_parts({{"a.parquet", 500, 1000}, {"long.parquet", 70, 0}});
  EXPECT_THAT(terminal.shown(), EndsWith("downloading   0% [------------------------] 0/2,000 B\r\n"
                                         "  a.parquet     50% [############------------] 500/1,000 B\r\n  long.parquet 70 B"));
  status_line::write_above([] {});
  const std::string again = terminal.shown();
  EXPECT_THAT(again, HasSubstr("\r\x1b[A\x1b[A\x1b[J"));  // two lines up, then all below away
  EXPECT_THAT(again, EndsWith("long.parquet 70 B"));
  progress->set_parts({});
  progress->finish();
  EXPECT_THAT(terminal.shown(), ::testing::MatchesRegex("\r\x1b\\[A\x1b\\[A\x1b\\[Jdownloading: 0 B in [^\n]*\r\n"));
}

}  // namespace
}  // namespace nanochat
