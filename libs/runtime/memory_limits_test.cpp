#include "runtime/memory_limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(AvailableMemory, IsAPlausibleNumber) {
  EXPECT_EQ(available_memory_bytes(c10::kCPU) >> 40, available_memory_bytes() >> 40);
  EXPECT_GT(available_memory_bytes(), std::int64_t{64} << 20);
  EXPECT_LT(available_memory_bytes(), std::int64_t{1} << 50);
}

TEST(AvailableMemory, KnowsALimitOfTheAddressSpace) {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
  constexpr std::int64_t kRoom = std::int64_t{1} << 28;
  rlimit limit = before;
  limit.rlim_cur = static_cast<rlim_t>(pages * ::sysconf(_SC_PAGESIZE) + kRoom);
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &limit), 0);
  const std::int64_t available = available_memory_bytes();
  ::setrlimit(RLIMIT_AS, &before);
  EXPECT_LE(available, kRoom);
  EXPECT_GT(available, kRoom / 2);
}

}  // namespace
}  // namespace nanochat
