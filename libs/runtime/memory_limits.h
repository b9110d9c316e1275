#pragma once
// Available memory of the host and of devices, in bytes.

#include <c10/core/Device.h>

#include <cstdint>

namespace nanochat {

// Memory that this process can still allocate: the smallest of MemAvailable of /proc/meminfo, the rest of the cgroup's limit,
// and the rest of the address space limit (ulimit -v).
std::int64_t available_memory_bytes();
// Free memory of a GPU; for a CPU, the same as above.
std::int64_t available_memory_bytes(c10::Device device);

}  // namespace nanochat
