#include "runtime/memory_limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

#include "ops/device.h"

namespace nanochat {

std::int64_t available_memory_bytes() {
  std::int64_t available = std::numeric_limits<std::int64_t>::max();
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key, unit; meminfo >> key;) {
    std::int64_t kilobytes = 0;
    meminfo >> kilobytes;
    std::getline(meminfo, unit);
    if (key == "MemAvailable:") available = kilobytes * 1024;
  }
  // A container's own limit, cgroup version 2 then 1; "max" fails to parse and means none.
  for (const auto& [limit_file, usage_file] :
       {std::pair{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        std::pair{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}}) {
    std::int64_t limit = 0, usage = 0;
    if (std::ifstream(limit_file) >> limit && std::ifstream(usage_file) >> usage) {
      available = std::min(available, std::max<std::int64_t>(0, limit - usage));
    }
  }
  // A limit of the address space (ulimit -v), less what is mapped already.
  rlimit limit{};
  std::int64_t pages = 0;
  if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && std::ifstream("/proc/self/statm") >> pages) {
    const auto room = static_cast<std::int64_t>(limit.rlim_cur) - pages * ::sysconf(_SC_PAGESIZE);
    available = std::min(available, std::max<std::int64_t>(0, room));
  }
  return available;
}

namespace {

std::atomic<std::int64_t> host_limit{0};  // 0: none

}  // namespace

void limit_memory(c10::Device device, std::int64_t bytes) {
  if (device.is_cuda()) {
    if (bytes > 0) ops::limit_device_memory(device, bytes);
  } else {
    host_limit = bytes;
  }
}

std::int64_t available_memory_bytes(c10::Device device) {
  if (device.is_cuda()) return ops::describe_gpu(device.index()).free_bytes;
  const std::int64_t available = available_memory_bytes(), limit = host_limit;
  return limit > 0 ? std::min(available, limit) : available;
}

}  // namespace nanochat
