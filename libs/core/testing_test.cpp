#include "core/testing.h"

#include <stdlib.h>

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/random.h"
#include "core/testing_corruption.h"
#include "core/testing_memory.h"

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

TEST(TestingTest, PeakMemoryIsSeenThoughItIsGivenBack) {
  constexpr std::int64_t kBytes = 64 << 20, kSlack = 4 << 20;
#ifdef __SANITIZE_ADDRESS__
  constexpr std::int64_t kShadow = kBytes / 8;  // a byte of AddressSanitizer's own for eight of the program's
#else
  constexpr std::int64_t kShadow = 0;
#endif
  const auto taken = peak_memory_of([] {
    std::vector<char> bytes(kBytes, 'x');
    ASSERT_EQ(bytes[kBytes / 2], 'x');
  });
  if (!taken) GTEST_SKIP() << "the peak cannot be reset";
  EXPECT_NEAR(static_cast<double>(*taken), static_cast<double>(kBytes + kShadow), static_cast<double>(kSlack));
  EXPECT_LT(peak_memory_of([] {}).value(), kSlack);
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
