#include "core/folder_lock.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// Ends this process when nobody holds the other end of the pipe any more: when the test has ended, in whatever way. A process
// that stayed behind would keep standard output open, for which ctest waits.
[[noreturn]] void end_with_the_test(int alive) {
  char byte = 0;
  while (::read(alive, &byte, 1) < 0 && errno == EINTR) {
  }
  ::_exit(0);
}

// A process of its own that locks the folder, runs `after` and waits until it is killed or the test ends. `after` is given a
// pipe for end_with_the_test().
class Holder {
 public:
  explicit Holder(
      const fs::path& folder, const std::function<void(int)>& after = [](int) {}) {
    int ready[2], alive[2];
    EXPECT_EQ(::pipe(ready), 0);
    EXPECT_EQ(::pipe(alive), 0);
    child_ = ::fork();
    if (child_ == 0) {
      ::close(ready[0]);
      ::close(alive[1]);
      const FolderLock lock(folder, "data prepare");
      after(alive[0]);
      static_cast<void>(::write(ready[1], "x", 1) == 1);
      end_with_the_test(alive[0]);
    }
    ::close(ready[1]);
    ::close(alive[0]);
    alive_ = alive[1];
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1) << "the process could not lock the folder";
    ::close(ready[0]);
  }
  ~Holder() {
    end();
    ::close(alive_);
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  pid_t pid() const { return child_; }
  // Kills the process. What it forked lives on until the destructor.
  void end() {
    if (child_ < 0) return;
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    child_ = -1;
  }

 private:
  pid_t child_ = -1;
  int alive_ = -1;
};

TEST(FolderLock, RefusesASecondProcessAndNamesTheFirst) {
  const testing::TemporaryDirectory folder;
  Holder holder(folder / "out");
  EXPECT_THAT([&] { FolderLock(folder / "out", "data prepare"); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr((folder / "out").string() + ": another process is writing"),
                                               HasSubstr("nanochat data prepare, process " + std::to_string(holder.pid())))));
  const FolderLock other(folder / "other", "data prepare");  // another folder is free
}

TEST(FolderLock, IsFreeAtOnceAfterKill9) {
  const testing::TemporaryDirectory folder;
  Holder holder(folder / "out");
  holder.end();
  EXPECT_TRUE(fs::exists(folder / "out" / FolderLock::kFileName)) << "nothing ran that could have removed it";
  const FolderLock lock(folder / "out", "pretrain");
  EXPECT_FALSE(lock.created_folder());
}

// A child that the holder leaves behind, such as a sandbox or a helper process, does not hold the lock. The child reports itself:
// fork() may return in the holder before the child has closed its copy of the lock.
TEST(FolderLock, IsNotHeldByAChildThatOutlivesTheHolder) {
  const testing::TemporaryDirectory folder;
  int orphan[2];
  ASSERT_EQ(::pipe(orphan), 0);
  Holder holder(folder / "out", [&](int alive) {
    if (::fork() == 0) {
      const pid_t self = ::getpid();
      static_cast<void>(::write(orphan[1], &self, sizeof self) == sizeof self);
      end_with_the_test(alive);
    }
  });
  pid_t child = -1;
  ASSERT_EQ(::read(orphan[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ::close(orphan[0]);
  ::close(orphan[1]);
  EXPECT_THROW(FolderLock(folder / "out", "pretrain"), ConfigError) << "the child closed its copy, which ended the lock";
  holder.end();
  EXPECT_NO_THROW(FolderLock(folder / "out", "pretrain"));
  EXPECT_EQ(::kill(child, 0), 0) << "the child is gone, so this shows nothing";
}

TEST(FolderLock, RefusesASecondTimeWithinAProcess) {
  const testing::TemporaryDirectory folder;
  {
    const FolderLock lock(folder / "out", "pretrain");
    EXPECT_THROW(FolderLock(folder / "out", "pretrain"), ConfigError);
    EXPECT_THROW(FolderLock((folder / "out").string() + "/", "pretrain"), ConfigError);
  }
  EXPECT_NO_THROW(FolderLock(folder / "out", "pretrain"));
}

TEST(FolderLock, RemovesWhatItMadeAndNothingElse) {
  const testing::TemporaryDirectory folder;
  { EXPECT_TRUE(FolderLock(folder / "made", "x").created_folder()); }
  EXPECT_FALSE(fs::exists(folder / "made")) << "nothing was written into it";
  {
    const FolderLock lock(folder / "filled", "x");
    testing::write_text(folder / "filled/file", "text");
  }
  EXPECT_EQ(read_file(folder / "filled/file"), "text");
  EXPECT_FALSE(fs::exists(folder / "filled" / FolderLock::kFileName));
  fs::create_directory(folder / "empty");
  { EXPECT_FALSE(FolderLock(folder / "empty", "x").created_folder()); }
  EXPECT_TRUE(fs::exists(folder / "empty")) << "it was there before";
}

TEST(FolderLock, SaysWhenTheFolderCannotBe) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "file", "text");
  EXPECT_THAT([&] { FolderLock(folder / "file/inner", "x"); }, ThrowsMessage<IoError>(HasSubstr("cannot create folder")));
}

// Ten processes at once, each of which creates, writes and removes: at no time do two hold the lock.
TEST(FolderLock, IsHeldByOneOfManyThatCompete) {
  const testing::TemporaryDirectory folder;
  std::vector<pid_t> children;
  for (int i = 0; i < 10; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      int overlaps = 0;
      for (int round = 0; round < 200; ++round) {
        try {
          const FolderLock lock(folder / "out", "x");
          std::error_code error;
          if (!fs::create_directory(folder / "inside", error)) ++overlaps;
          fs::remove(folder / "inside", error);
        } catch (const ConfigError&) {  // another one has it
        }
      }
      ::_exit(overlaps == 0 ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

}  // namespace
}  // namespace nanochat
