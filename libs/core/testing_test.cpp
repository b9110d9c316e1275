#include "core/testing.h"

#include <stdlib.h>

#include <set>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/random.h"
#include "core/testing_corruption.h"

namespace nanochat::testing {
namespace {

TEST(TestingTest, TemporaryDirectoryIsFreshAndRemoved) {
  std::filesystem::path path;
  {
    const TemporaryDirectory first, second;
    EXPECT_NE(first.path(), second.path());
    path = first.path();
    write_text(first / "file", "text");
    EXPECT_EQ(read_file(first / "file"), "text");
    EXPECT_THROW(write_text(first / "absent/file", "text"), std::runtime_error);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(TestingTest, CorruptedBytesAreOthersAndFollowTheSeed) {
  const std::string original = R"({"length": 4096, "name": "weights"})";
  Rng first(5), second(5);
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string damaged = corrupted(original, first);
    EXPECT_NE(damaged, original);
    EXPECT_EQ(corrupted(original, second), damaged);
    seen.insert(damaged);
  }
  EXPECT_GT(seen.size(), 50U);
  EXPECT_NE(corrupted("", first), "");
}

TEST(TestingTest, SharedPathFollowsTheEnvironment) {
  const char* before = ::getenv("NANOCHAT_SHARED_DIR");
  const std::string saved = before == nullptr ? "" : before;
  const TemporaryDirectory folder;
  write_text(folder / "there", "");
  ::setenv("NANOCHAT_SHARED_DIR", folder.path().c_str(), 1);
  EXPECT_EQ(shared_path("there"), folder / "there");
  EXPECT_EQ(shared_path("absent"), std::nullopt);
  if (before == nullptr) {
    ::unsetenv("NANOCHAT_SHARED_DIR");
  } else {
    ::setenv("NANOCHAT_SHARED_DIR", saved.c_str(), 1);
  }
}

}  // namespace
}  // namespace nanochat::testing
