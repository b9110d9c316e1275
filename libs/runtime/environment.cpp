#include "runtime/environment.h"

#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <fstream>
#include <string>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/format.h"
#include "core/thread_pool.h"
#include "runtime/runtime.h"

namespace nanochat {
namespace {

// "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", where the kernel says so.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (const std::size_t colon = line.find(": "); line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown processor";
}

}  // namespace

nlohmann::json describe_environment(const Runtime& runtime) {
  nlohmann::json environment{
      {"device", runtime.description},
      {"processor", fmt::format("{}, {} cores for this process", processor_name(), available_threads())}};
  struct sysinfo memory {};
  if (::sysinfo(&memory) == 0) {
    environment["memory"] = human_bytes(static_cast<double>(memory.totalram) * static_cast<double>(memory.mem_unit));
  }
  utsname system{};
  if (::uname(&system) == 0) environment["system"] = fmt::format("{} {} {}", system.sysname, system.release, system.machine);
  return environment;
}

}  // namespace nanochat
