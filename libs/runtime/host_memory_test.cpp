#include "runtime/host_memory.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace nanochat {
namespace {

// "hg" among the flags of the mapping that holds an address: the kernel was asked for huge pages there.
bool asked_for_huge_pages(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::istringstream head(line);
    if (head >> std::hex >> begin >> dash >> end && dash == '-') {
      const auto value = reinterpret_cast<std::uintptr_t>(address);
      here = begin <= value && value < end;
    } else if (here && line.rfind("VmFlags:", 0) == 0) {
      return line.find(" hg") != std::string::npos;
    }
  }
  return false;
}

long page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// Alone in its process: the allocator looks at its variable once.
TEST(HostMemory, TensorsLieOnHugePagesAndFreedMemoryStays) {
  ASSERT_EQ(std::getenv("THP_MEM_ALLOC_ENABLE"), nullptr) << "set by the surroundings of this test";
  prepare_host_memory();

  std::string pages;
  std::getline(std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled"), pages);
  if (pages.find("[always]") != std::string::npos || pages.find("[madvise]") != std::string::npos) {
    const at::Tensor tensor = at::empty({std::int64_t{64} << 20}, at::kByte);
    const auto* middle = static_cast<const char*>(tensor.const_data_ptr()) + (32 << 20);
    EXPECT_TRUE(asked_for_huge_pages(middle));
  }

  constexpr std::size_t kBytes = 1 << 20;  // below the size of a huge page, 256 small ones
  const auto touch = [] {
    void* block = std::malloc(kBytes);
    std::memset(block, 1, kBytes);
    asm volatile("" : : "r"(block) : "memory");  // or it would be left out
    std::free(block);
  };
  touch();
  const long before = page_faults();
  for (int i = 0; i < 10; ++i) touch();
  [[maybe_unused]] const long faults = page_faults() - before;
#if !defined(__SANITIZE_ADDRESS__)  // which brings an allocator of its own
  EXPECT_LT(faults, 256) << "ten times the same memory";
#endif

  ::setenv("THP_MEM_ALLOC_ENABLE", "0", /*overwrite=*/1);
  prepare_host_memory();
  EXPECT_STREQ(std::getenv("THP_MEM_ALLOC_ENABLE"), "0") << "what the user has set stays";
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
std::int64_t resident_bytes() {
  std::int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

TEST(HostMemory, KeptMemoryCanBeReleased) {
  prepare_host_memory();
  std::vector<void*> blocks;
  for (int i = 0; i < 100; ++i) {
    blocks.push_back(std::malloc(1 << 20));
    std::memset(blocks.back(), 1, 1 << 20);
    asm volatile("" : : "r"(blocks.back()) : "memory");
  }
  for (void* block : blocks) std::free(block);
  const std::int64_t kept = resident_bytes();
  release_host_memory();
  EXPECT_LT(resident_bytes(), kept - (80 << 20));
}
#endif

}  // namespace
}  // namespace nanochat
