#include "runtime/precision.h"

#include <ATen/Parallel.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/log.h"
#include "core/sha256.h"
#include "core/thread_pool.h"
#include "runtime/versions.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* name_of(Workload workload) { return workload == Workload::kTraining ? "training" : "decoding"; }

// Who runs the virtual machine that this may be: "KVMKVMKVM".
std::string hypervisor() {
#ifdef __x86_64__
  constexpr unsigned kPresent = 1U << 31, kVendorLeaf = 0x40000000;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kPresent) == 0) return "none";
  __cpuid(kVendorLeaf, a, b, c, d);
  const std::array<unsigned, 3> words = {b, c, d};
  char text[sizeof words + 1] = {};
  std::memcpy(text, words.data(), sizeof words);
  return text;
#else
  return "unknown";
#endif
}

// The lines of the first processor that name it, and a digest of what it can do.
std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string text;
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const std::string key = line.substr(0, line.find_last_not_of(" \t", line.find(':') - 1) + 1);
    const std::string value = line.find(": ") == std::string::npos ? "" : line.substr(line.find(": ") + 2);
    if (key == "flags" || key == "Features") {
      text += fmt::format("flags: {:.16}\n", sha256_hex(value));
    } else if (key == "vendor_id" || key == "cpu family" || key == "model" || key == "model name" || key == "stepping" ||
               key == "cache size") {
      text += key + ": " + value + "\n";
    }
  }
  return text;
}

constexpr std::size_t kLargestFile = std::size_t{1} << 20;

std::optional<PrecisionRates> read_rates(const fs::path& file, const std::string& machine) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return std::nullopt;
  try {
    const json found = json::parse(read_file(file, kLargestFile));
    if (found.at("machine") != machine) return std::nullopt;
    const PrecisionRates rates{found.at("float32").get<double>(), found.at("bfloat16").get<double>()};
    const auto plausible = [](double rate) { return std::isfinite(rate) && rate > 0.0; };
    if (plausible(rates.float32) && plausible(rates.bfloat16)) return rates;
  } catch (const Error&) {            // unreadable
  } catch (const json::exception&) {  // not JSON, or other keys
  }
  return std::nullopt;
}

void write_rates(const fs::path& file, const std::string& machine, const PrecisionRates& rates) {
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  if (error) return;
  try {
    const json measured{{"machine", machine}, {"float32", rates.float32}, {"bfloat16", rates.bfloat16}};
    write_file_atomically(file, measured.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  } catch (const IoError& unwritable) {
    log_debug("{}", unwritable.what());
  }
}

PrecisionRates measure(Workload workload, int threads) {
  const int before = at::get_num_threads();
  at::set_num_threads(threads);
  const PrecisionRates rates = workload == Workload::kTraining ? measure_training_products() : measure_decoding_products();
  at::set_num_threads(before);
  return rates;
}

}  // namespace

at::ScalarType faster_dtype(const PrecisionRates& rates) {
  return rates.bfloat16 >= rates.float32 ? at::kBFloat16 : at::kFloat;
}

std::string describe_measured_machine(int threads) {
  std::string text = processor() + fmt::format("hypervisor: {}\nthreads: {} on {}\nversions: nanochat {}, LibTorch {}\n",
                                               hypervisor(), threads, available_threads(), program_version(),
                                               libtorch_version());
  for (const char* name :
       {"NANOCHAT_CPU", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE",
        "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY"}) {
    if (const char* value = std::getenv(name); value != nullptr) text += fmt::format("{}={}\n", name, value);
  }
  return text;
}

fs::path precision_cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value == nullptr ? "" : value);
  };
  // Of a relative one its specification says that it has to be passed over.
  if (const fs::path cache = variable("XDG_CACHE_HOME"); cache.is_absolute()) return cache / "nanochat";
  if (const fs::path home = variable("HOME"); home.is_absolute()) return home / ".cache" / "nanochat";
  return {};
}

PrecisionRates cached_rates(const fs::path& folder, const std::string& machine, Workload workload,
                            const std::function<PrecisionRates()>& measure) {
  if (folder.empty()) return measure();
  const fs::path file = folder / fmt::format("precision-{}-{:.16}.json", name_of(workload), sha256_hex(machine));
  if (const auto rates = read_rates(file, machine)) return *rates;
  const PrecisionRates rates = measure();
  write_rates(file, machine, rates);
  return rates;
}

PrecisionRates precision_rates(Workload workload, int threads) {
  static std::mutex mutex;
  static std::map<std::pair<Workload, int>, PrecisionRates> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find({workload, threads});
  if (found != known.end()) return found->second;
  const PrecisionRates rates = cached_rates(precision_cache_folder(), describe_measured_machine(threads), workload,
                                            [&] { return measure(workload, threads); });
  log_debug("products for {}, {} threads: {:.3g} a second in float32, {:.3g} in bfloat16", name_of(workload), threads,
            rates.float32, rates.bfloat16);
  return known[{workload, threads}] = rates;
}

}  // namespace nanochat
