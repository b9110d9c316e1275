#pragma once
// How much memory there is, on the host and on a device.

#include <c10/core/Device.h>

#include <cstdint>

namespace nanochat {

// Memory this process may still take: the machine's available memory, or the room that its cgroup's limit or the limit of
// its address space (ulimit -v) leaves when that is lower.
std::int64_t available_memory_bytes();
// The same of a device: free memory of a GPU, or the above.
std::int64_t available_memory_bytes(c10::Device device);

}  // namespace nanochat
