#include "runtime/memory_limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

// Bytes that /proc/meminfo has under `name`.
std::int64_t meminfo(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  return -1;
}

// What the cgroup of this process leaves, or INT64_MAX without a limit.
std::int64_t cgroup_room() {
  const auto room = [](const char* limit_file, const char* usage_file) {
    std::int64_t limit = 0, usage = 0;
    const bool limited = std::ifstream(limit_file) >> limit && std::ifstream(usage_file) >> usage;  // "max" is no number
    return limited ? std::max<std::int64_t>(0, limit - usage) : INT64_MAX;
  };
  return std::min(room("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
                  room("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"));
}

TEST(AvailableMemory, IsWhatTheKernelReports) {
  constexpr std::int64_t kDrift = std::int64_t{512} << 20;  // that other processes may take or free between two readings
  const auto reported = [] { return std::min(meminfo("MemAvailable"), cgroup_room()); };
  ASSERT_GT(meminfo("MemAvailable"), 0);
  for (const bool by_device : {false, true}) {
    const std::int64_t before = reported();
    const std::int64_t available = by_device ? available_memory_bytes(c10::kCPU) : available_memory_bytes();
    const std::int64_t after = reported();
    EXPECT_GE(available, std::min(before, after) - kDrift);
    EXPECT_LE(available, std::max(before, after) + kDrift);
  }
}

TEST(AvailableMemory, IsAtMostTheUsersLimit) {
  constexpr std::int64_t kLimit = 1 << 20;
  limit_memory(c10::kCPU, kLimit);
  EXPECT_EQ(available_memory_bytes(c10::kCPU), kLimit);
  EXPECT_GT(available_memory_bytes(), kLimit) << "of the machine, not of this process";
  limit_memory(c10::kCPU, 0);
  EXPECT_GT(available_memory_bytes(c10::kCPU), kLimit);
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
