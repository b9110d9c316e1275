#pragma once
// Available memory of the host and of devices, in bytes.

#include <c10/core/Device.h>

#include <cstdint>

namespace nanochat {

// Memory that this process can still allocate: the smallest of MemAvailable of /proc/meminfo, the rest of the cgroup's limit,
// and the rest of the address space limit (ulimit -v).
std::int64_t available_memory_bytes();
// The user's limit (--memory-limit) for what is allocated on a device, in bytes. A GPU's allocator enforces it
// (ops/device.h); for a CPU, it bounds the result of the next function alone. 0: none.
void limit_memory(c10::Device device, std::int64_t bytes);
// Free memory of a GPU; for a CPU, the same as above; in both cases at most what the limit leaves.
std::int64_t available_memory_bytes(c10::Device device);

}  // namespace nanochat
