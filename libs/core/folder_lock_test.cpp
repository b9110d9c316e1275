#include "core/folder_lock.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

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

// A process of its own that locks the folder, runs `after` and waits until it is ended.
class Holder {
 public:
  explicit Holder(
      const fs::path& folder, const std::function<void()>& after = [] {}) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    child_ = ::fork();
    if (child_ == 0) {
      ::close(ready[0]);
      const FolderLock lock(folder, "data prepare");
      after();
      static_cast<void>(::write(ready[1], "x", 1) == 1);
      for (;;) ::pause();
    }
    ::close(ready[1]);
    char byte = 0;
    EXPECT_EQ(::read(ready[0], &byte, 1), 1) << "the process could not lock the folder";
    ::close(ready[0]);
  }
  ~Holder() { end(); }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  pid_t pid() const { return child_; }
  void end() {
    if (child_ < 0) return;
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    child_ = -1;
  }

 private:
  pid_t child_ = -1;
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

// A child that the holder left behind, as a sandbox or a helper process, keeps nobody out.
TEST(FolderLock, IsNotHeldByAChildThatOutlivesTheHolder) {
  const testing::TemporaryDirectory folder;
  int orphan[2];
  ASSERT_EQ(::pipe(orphan), 0);
  Holder holder(folder / "out", [&] {
    const pid_t child = ::fork();
    if (child == 0) {
      for (;;) ::pause();
    }
    static_cast<void>(::write(orphan[1], &child, sizeof child) == sizeof child);
  });
  pid_t child = -1;
  ASSERT_EQ(::read(orphan[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ::close(orphan[0]);
  ::close(orphan[1]);
  EXPECT_THROW(FolderLock(folder / "out", "pretrain"), ConfigError) << "the child closed its copy, which ended the lock";
  holder.end();
  EXPECT_EQ(::kill(child, 0), 0) << "the child is gone, so this shows nothing";
  { const FolderLock lock(folder / "out", "pretrain"); }
  ::kill(child, SIGKILL);
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
