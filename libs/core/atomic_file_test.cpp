#include "core/atomic_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

template <class Exception, class Function>
std::string message_of(Function&& function) {
  try {
    function();
  } catch (const Exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

class AtomicFileTest : public ::testing::Test {
 protected:
  testing::TemporaryDirectory folder_;
};

TEST_F(AtomicFileTest, AppearsOnlyOnCommit) {
  const fs::path target = folder_ / "out.bin";
  AtomicFile file(target);
  file.write("hello ");
  file.write("world");
  EXPECT_EQ(file.size(), 11u);
  EXPECT_FALSE(fs::exists(target));
  file.commit();
  EXPECT_EQ(read_file(target), "hello world");
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(AtomicFileTest, AbandonedLeavesTheTargetUntouched) {
  const fs::path target = folder_ / "out";
  testing::write_text(target, "old");
  {
    AtomicFile file(target);
    file.write(std::string(3 << 20, 'x'));
  }
  EXPECT_EQ(read_file(target), "old");
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(AtomicFileTest, OverwritesAHeaderAcrossTheBuffer) {
  const std::string body(5 << 20, 'b');
  AtomicFile file(folder_ / "out");
  file.write("HEAD");
  file.write(body);
  file.write("tail");
  file.write_at(0, "head", 4);
  EXPECT_THROW(file.write_at(file.size() - 1, "xx", 2), std::out_of_range);
  file.commit();
  EXPECT_EQ(read_file(folder_ / "out"), "head" + body + "tail");
}

TEST_F(AtomicFileTest, ErrorsNameTheTarget) {
  const fs::path in_no_folder = folder_ / "absent/out";
  EXPECT_THAT(message_of<IoError>([&] { AtomicFile file(in_no_folder); }),
              ::testing::AllOf(HasSubstr(in_no_folder.string()), HasSubstr("No such file or directory")));
  EXPECT_THAT(message_of<IoError>([&] { AtomicFile file(folder_.path()); }), HasSubstr("not a regular file"));
  EXPECT_THAT(message_of<IoError>([&] { AtomicFile file("/dev/null"); }), HasSubstr("not a regular file"));
}

TEST_F(AtomicFileTest, AFullDiskIsAnErrorAndLeavesNothing) {
  // A limit on the size of files stands in for the full disk: write() then fails in the same way.
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 4096;
  std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of<IoError>([&] { write_file_atomically(folder_ / "out", std::string(100000, 'x')); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(message, HasSubstr("cannot write"));
  EXPECT_EQ(entries(folder_.path()), 0u);
}

TEST_F(AtomicFileTest, FollowsALinkToTheFileBehindIt) {
  testing::write_text(folder_ / "file", "old");
  fs::create_symlink("file", folder_ / "link");
  write_file_atomically(folder_ / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(read_file(folder_ / "file"), "new");
}

TEST_F(AtomicFileTest, ANameInTheCurrentFolder) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_.path());
  write_file_atomically("out", "text");
  fs::current_path(before);
  EXPECT_EQ(read_file(folder_ / "out"), "text");
}

TEST_F(AtomicFileTest, DirectoryAppearsWholeAndReplacesTheOldOne) {
  const fs::path target = folder_ / "checkpoint/";  // a slash at the end changes nothing
  const auto write_version = [&](const std::string& name, const std::string& text) {
    AtomicDirectory directory(target);
    fs::create_directory(directory.path() / "inner");
    testing::write_text(directory.path() / "inner" / name, text);
    directory.commit();
  };
  write_version("a", "one");
  EXPECT_EQ(read_file(folder_ / "checkpoint/inner/a"), "one");
  write_version("b", "two");
  EXPECT_EQ(read_file(folder_ / "checkpoint/inner/b"), "two");
  EXPECT_FALSE(fs::exists(folder_ / "checkpoint/inner/a"));
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(AtomicFileTest, AbandonedDirectoryIsRemoved) {
  {
    AtomicDirectory directory(folder_ / "checkpoint");
    testing::write_text(directory.path() / "file", "text");
  }
  EXPECT_EQ(entries(folder_.path()), 0u);
}

TEST_F(AtomicFileTest, SaysWhyAFolderCannotBeMade) {
  testing::write_text(folder_ / "file", "text");
  EXPECT_THAT(message_of<IoError>([&] { AtomicDirectory directory(folder_ / "file"); }), HasSubstr("not a folder"));
  EXPECT_THAT(message_of<IoError>([&] { AtomicDirectory directory(folder_ / "absent/inner"); }),
              HasSubstr("No such file or directory"));
}

TEST_F(AtomicFileTest, ReadFileReadsAPipe) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  const auto write = [&](const std::string& text) {
    return std::jthread([path = folder_ / "pipe", text] { std::ofstream(path, std::ios::binary) << text; });
  };
  const std::string text(200'000, 'x');
  {
    const std::jthread writer = write(text);
    EXPECT_EQ(read_file(folder_ / "pipe"), text);
  }
  const std::jthread writer = write("more than is read, and less than the pipe holds, so that writing never fails: " +
                                    std::string(100, 'x'));
  EXPECT_THAT(message_of<DataError>([&] { read_file(folder_ / "pipe", 100); }),
              HasSubstr("more than the 100 that are read at once"));
}

TEST_F(AtomicFileTest, ReadFileSaysWhatIsWrong) {
  testing::write_text(folder_ / "file", std::string("a\0b", 3));
  EXPECT_EQ(read_file(folder_ / "file"), std::string("a\0b", 3));
  EXPECT_THAT(message_of<DataError>([&] { read_file(folder_ / "file", 2); }), HasSubstr("is 3 bytes, more than the 2"));
  EXPECT_THAT(message_of<DataError>([&] { read_file(folder_ / "absent"); }), HasSubstr("no such file"));
  EXPECT_THAT(message_of<DataError>([&] { read_file(folder_.path()); }), HasSubstr("is a folder"));
  EXPECT_THAT(message_of<DataError>([&] { read_file("/dev/null"); }), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace nanochat
