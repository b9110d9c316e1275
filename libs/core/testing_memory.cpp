#include "core/testing_memory.h"

#include <fstream>
#include <string>

namespace nanochat::testing {
namespace {

// A line of /proc/self/status in bytes, such as VmRSS, what is resident, and VmHWM, the most that was.
std::int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

}  // namespace

std::optional<std::int64_t> peak_memory_of(const std::function<void()>& work) {
  if (!(std::ofstream("/proc/self/clear_refs") << "5" << std::flush)) return std::nullopt;
  const std::int64_t before = status_bytes("VmRSS");
  work();
  return status_bytes("VmHWM") - before;
}

}  // namespace nanochat::testing
