#pragma once
// Selects the precision of `--dtype auto` on a CPU: the one whose products run faster on this machine, by a short
// measurement (ops/precision_rates.h). The result is kept in memory and in a file of the user's cache, so that every
// command makes the same choice. It is measured again when anything changes that it may depend on. Thread-safe.

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <functional>
#include <string>

#include "ops/precision_rates.h"

namespace nanochat {

// The main work of a command: products of thousands of rows, or one row at a time through all weights.
enum class Workload { kTraining, kDecoding };

// bfloat16 if it is at least as fast, because it takes half the memory.
at::ScalarType faster_dtype(const ops::PrecisionRates& rates);

// The rates with this number of threads, measured earlier on this machine or else now.
ops::PrecisionRates precision_rates(Workload workload, int threads);

// The parts of this, for tests.
// Everything that a measurement depends on: processor and hypervisor, threads,
// versions, and environment variables that select kernels; one per line.
std::string describe_measured_machine(int threads);
// $XDG_CACHE_HOME/nanochat, or ~/.cache/nanochat; empty if neither is known.
std::filesystem::path precision_cache_folder();
// The file in `folder` for this machine and workload, if it is complete; otherwise the result of measure(), which is
// written there. An empty folder, or one that cannot be written, is not an error: the next process measures again.
ops::PrecisionRates cached_rates(const std::filesystem::path& folder, const std::string& machine, Workload workload,
                                 const std::function<ops::PrecisionRates()>& measure);

}  // namespace nanochat
