#pragma once
// Chooses the precision of `--dtype auto` on a CPU: a short measurement (runtime/precision_rates.h) finds the one whose matrix
// products are faster on this machine. The result is stored in memory and in a file of the user's cache, so that all commands
// choose the same. It is measured again if anything changes that it may depend on. Thread-safe.

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <functional>
#include <string>

#include "runtime/precision_rates.h"
#include "runtime/runtime.h"

namespace nanochat {

// Returns bfloat16 if it is at least as fast as float32, because it needs half the memory.
at::ScalarType faster_dtype(const PrecisionRates& rates);

// The rates with this number of threads, measured earlier on this machine or now.
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
