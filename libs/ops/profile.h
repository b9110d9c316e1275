#pragma once
// Time of each kernel on a GPU, from LibTorch's profiler (Kineto over CUPTI).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace nanochat::ops {

struct KernelTime {
  std::string name;
  std::int64_t calls = 0;
  double milliseconds = 0.0;
};

// Runs `work`, which must wait for the GPU, and returns the kernels, copies and fills
// that ran there, sorted by decreasing time. `trace`, if not empty, is the file for a
// Chrome trace (chrome://tracing or Perfetto). Only one at a time in a process.
std::vector<KernelTime> profile_gpu(const std::function<void()>& work, const std::filesystem::path& trace = {});

}  // namespace nanochat::ops
