#pragma once
// Which precision `--dtype auto` means on a CPU: the one whose products run faster on this machine, by a short measurement
// (runtime/precision_rates.h). It is kept in memory and in a file of the user's cache, so that every command chooses alike, and
// made anew when anything changes that it may depend on. Thread-safe.

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <functional>
#include <string>

#include "runtime/precision_rates.h"
#include "runtime/runtime.h"

namespace nanochat {

// bfloat16 where it is at least as fast: it takes half the memory.
at::ScalarType faster_dtype(const PrecisionRates& rates);

// As measured with so many threads, by this process, or by an earlier one on this machine; otherwise measured now.
PrecisionRates precision_rates(Workload workload, int threads);

// The parts of this, for tests.
// Everything that a measurement depends on: processor and hypervisor, threads,
// versions, and environment variables that select kernels; one per line.
std::string describe_measured_machine(int threads);
// $XDG_CACHE_HOME/nanochat, or ~/.cache/nanochat; empty if neither is known.
std::filesystem::path precision_cache_folder();
// The file of `folder` for this machine and workload, when it is whole; otherwise what measure() returns, which is
// written there. An empty folder, or one that cannot be written, is no error: the next process measures again.
PrecisionRates cached_rates(const std::filesystem::path& folder, const std::string& machine, Workload workload,
                            const std::function<PrecisionRates()>& measure);

}  // namespace nanochat
