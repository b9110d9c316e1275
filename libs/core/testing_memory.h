#pragma once
// For tests only: the memory that a piece of work takes.

#include <cstdint>
#include <functional>
#include <optional>

namespace nanochat::testing {

// AddressSanitizer keeps freed memory for a while, and its own records count: memory in use cannot be measured with it.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kFreedMemoryIsKept = true;
#else
inline constexpr bool kFreedMemoryIsKept = false;
#endif

// The most memory that was resident at any moment while `work` ran, in bytes above what was resident before it. What
// libraries take on first use counts, so run something smaller first. nullopt where the kernel does not reset its record
// of the peak (/proc/self/clear_refs); callers then GTEST_SKIP(). One thread of a process at a time may measure.
std::optional<std::int64_t> peak_memory_of(const std::function<void()>& work);

}  // namespace nanochat::testing
