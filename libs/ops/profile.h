#pragma once
// Where time goes on a GPU, kernel by kernel, through LibTorch's profiler (Kineto over CUPTI).

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

// Runs `work`, which must wait for the GPU, and returns the kernels, copies and fills that ran there meanwhile, those
// with the most time first. `trace`, when not empty, receives a Chrome trace (for chrome://tracing or Perfetto). One
// at a time in a process.
std::vector<KernelTime> profile_gpu(const std::function<void()>& work, const std::filesystem::path& trace = {});

}  // namespace nanochat::ops
