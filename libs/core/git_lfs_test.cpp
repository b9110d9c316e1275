#include "core/git_lfs.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/mapped_file.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const std::string kPointer =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 5368709120\n";

TEST(GitLfs, APointerIsNamedWithTheSizeOfTheFile) {
  EXPECT_THAT(
      [] { refuse_lfs_pointer(kPointer, "model.safetensors"); },
      ThrowsMessage<DataError>(AllOf(HasSubstr("model.safetensors: is a Git LFS pointer, not the file itself of 5.0 GiB"),
                                     HasSubstr("git lfs pull"))));
}

TEST(GitLfs, OtherFilesPass) {
  EXPECT_NO_THROW(refuse_lfs_pointer("", "a"));
  EXPECT_NO_THROW(refuse_lfs_pointer("version https://git-lfs.github.com/spec/v1 is what pointers begin with", "a.txt"));
  EXPECT_NO_THROW(refuse_lfs_pointer(kPointer + std::string(kMaxLfsPointerBytes, 'x'), "a.txt"));
  EXPECT_NO_THROW(refuse_lfs_pointer("text about\n" + kPointer, "a.txt"));
}

TEST(GitLfs, EveryWayToReadAFileRefusesOne) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "file", kPointer);
  EXPECT_THAT([&] { refuse_lfs_pointer(folder / "file"); }, ThrowsMessage<DataError>(HasSubstr("Git LFS pointer")));
  EXPECT_THAT([&] { read_file(folder / "file"); }, ThrowsMessage<DataError>(HasSubstr("Git LFS pointer")));
  EXPECT_THAT([&] { MappedFile file(folder / "file"); }, ThrowsMessage<DataError>(HasSubstr("Git LFS pointer")));
  EXPECT_NO_THROW(refuse_lfs_pointer(folder / "absent"));
  EXPECT_NO_THROW(refuse_lfs_pointer(folder.path()));
}

}  // namespace
}  // namespace nanochat
